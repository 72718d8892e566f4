/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GW_SIM_STORIES_H
#define GW_SIM_STORIES_H

#include "sim/world.h"

struct sim_story {
    const char *title;
    struct sim_plan plan;
    const char *golden; /* the trace */
    struct {
        enum gw_phase phase; /* the source's */
        enum gw_code code;   /* its error */
        enum node node;      /* whom the record names */
        unsigned epoch;
    } end;
};

extern const struct sim_story sim_stories[];
extern const unsigned n_sim_stories;

#endif
