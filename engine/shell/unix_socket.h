/* SPDX-License-Identifier: Apache-2.0 */
/* A listening unix socket whose predecessor may have been killed. */
#ifndef GW_SHELL_UNIX_SOCKET_H
#define GW_SHELL_UNIX_SOCKET_H

#include "godwit/error.h"

/*
 * Listens on a new stream socket at path, mode 0660 and no more than the umask allows. A socket on
 * which nobody answers is replaced; one on which somebody does is GW_E_EXISTS; a path that is
 * something else, empty or longer than 107 bytes is GW_E_CONFIG. Returns the descriptor
 * (non-blocking, close-on-exec), or -1 and *e. Changes the process's umask for a moment: not with
 * threads.
 */
int gw_unix_listen(const char *path, struct gw_error *e);

#endif
