/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GW_UTIL_TREE_H
#define GW_UTIL_TREE_H

/* Removes a directory and all below it, without following symbolic links or crossing into another
 * file system. One that is not there is fine. 0, or -1 with errno. */
int gw_remove_tree(const char *path);

#endif
