/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "godwit/error.h"

static const char *const names[GW_CODE_MAX] = {
    [GW_OK] = "ok",
    [GW_E_USAGE] = "usage",
    [GW_E_CONFIG] = "config",
    [GW_E_NOT_FOUND] = "not-found",
    [GW_E_EXISTS] = "exists",
    [GW_E_BUSY] = "busy",
    [GW_E_STATE] = "state",
    [GW_E_SYSTEM] = "system",
    [GW_E_PROTOCOL] = "protocol",
    [GW_E_TIMEOUT] = "timeout",
    [GW_E_PEER] = "peer",
    [GW_E_REFUSED] = "refused",
    [GW_E_QEMU] = "qemu",
    [GW_E_QEMU_GONE] = "qemu-gone",
    [GW_E_INCOMPATIBLE] = "incompatible",
    [GW_E_CANCELLED] = "cancelled",
    [GW_E_PERMISSION] = "permission",
    [GW_E_UNRESOLVED] = "unresolved",
    [GW_E_UNSUPPORTED] = "unsupported",
    [GW_E_MEMORY] = "memory-differs",
};

const char *gw_code_name(enum gw_code code)
{
    if ((unsigned)code >= GW_CODE_MAX)
        return "unknown";
    return names[code];
}

enum gw_code gw_code_from_name(const char *name)
{
    for (unsigned i = 0; name && i < GW_CODE_MAX; i++)
        if (strcmp(names[i], name) == 0)
            return (enum gw_code)i;
    return GW_E_PROTOCOL;
}

int gw_error_set(struct gw_error *e, enum gw_code code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -1;
    e->code = code;
    e->sys = 0;
    e->hint[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return -1;
}

int gw_error_set_sys(struct gw_error *e, int sys, const char *fmt, ...)
{
    va_list ap;
    size_t used;

    if (!e)
        return -1;
    e->code = GW_E_SYSTEM;
    e->sys = sys;
    e->hint[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    used = strlen(e->msg);
    snprintf(e->msg + used, sizeof e->msg - used, ": %s", strerror(sys));
    return -1;
}

int gw_error_hint(struct gw_error *e, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -1;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return -1;
}

int gw_error_prefix(struct gw_error *e, const char *fmt, ...)
{
    char old[sizeof e->msg];
    size_t used;
    va_list ap;

    if (!e)
        return -1;
    memcpy(old, e->msg, sizeof old);
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    used = strlen(e->msg);
    snprintf(e->msg + used, sizeof e->msg - used, ": %.*s", (int)(sizeof old - 1), old);
    return -1;
}
