/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "godwit/phase.h"

static const struct {
    const char *name;
    const char *comment;
} phases[GW_PHASE_MAX] = {
    [GW_PREPARING] = {"preparing", "checking both nodes and starting QEMU on the destination"},
    [GW_PRECOPY] = {"precopy", "copying memory while the guest runs on the source"},
    [GW_SWITCHOVER] = {"switchover", "guest paused: last pages and device state go over"},
    [GW_COMMITTING] = {"committing", "handing the guest to the destination"},
    [GW_FINISHING] = {"finishing", "guest runs on the destination: clearing up the source"},
    [GW_COMPLETED] = {"completed", "the guest has moved"},
    [GW_FAILING] = {"failing", "undoing: the guest stays on the source"},
    [GW_FAILED] = {"failed", "the guest has not moved"},
    [GW_CANCELLED] = {"cancelled", "the guest has not moved, as asked"},
};

const char *gw_phase_name(enum gw_phase phase)
{
    return (unsigned)phase < GW_PHASE_MAX ? phases[phase].name : "unknown";
}

enum gw_phase gw_phase_from_name(const char *name)
{
    unsigned i;

    for (i = 0; i < GW_PHASE_MAX; i++)
        if (strcmp(phases[i].name, name) == 0)
            break;
    return (enum gw_phase)i;
}

const char *gw_phase_comment(enum gw_phase phase)
{
    return (unsigned)phase < GW_PHASE_MAX ? phases[phase].comment : "";
}

bool gw_phase_is_end(enum gw_phase phase)
{
    return phase == GW_COMPLETED || phase == GW_FAILED || phase == GW_CANCELLED;
}
