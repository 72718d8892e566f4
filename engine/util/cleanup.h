/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound cleanup of locals, and container_of.
 *
 *     gw_autofree char *line = NULL;      freed when it goes out of scope
 *     gw_autoclose int fd = -1;           closed if not -1
 *     gw_auto(thing) struct gw_thing *t;  gw_thing_free()d; needs GW_DEFINE_AUTO(thing)
 *     return gw_steal_ptr(&line);         hands ownership out
 */
#ifndef GW_UTIL_CLEANUP_H
#define GW_UTIL_CLEANUP_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define GW_CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void gw_cleanup_free(void *pp)
{
    free(*(void **)pp);
}

static inline void gw_cleanup_close(int *fdp)
{
    if (*fdp >= 0)
        close(*fdp);
}

#define gw_autofree   GW_CLEANUP(gw_cleanup_free)
#define gw_autoclose  GW_CLEANUP(gw_cleanup_close)
#define gw_auto(name) GW_CLEANUP(gw_##name##_cleanup)

#define GW_DEFINE_AUTO(name)                                     \
    static inline void gw_##name##_cleanup(struct gw_##name **p) \
    {                                                            \
        gw_##name##_free(*p);                                    \
    }

#define gw_steal_ptr(pp)                     \
    ({                                       \
        __typeof__(*(pp)) gw_stolen = *(pp); \
        *(pp) = NULL;                        \
        gw_stolen;                           \
    })

static inline int gw_steal_fd(int *fdp)
{
    int fd = *fdp;

    *fdp = -1;
    return fd;
}

#define gw_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define GW_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
