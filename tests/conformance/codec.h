/* SPDX-License-Identifier: Apache-2.0 */
/* What every codec promises, whatever it is made of. */
#ifndef GW_TESTS_CONFORMANCE_CODEC_H
#define GW_TESTS_CONFORMANCE_CODEC_H

#include "godwit/codec.h"

/* Runs the whole table. */
void codec_conformance(const struct gw_codec_ops *ops);

#endif
