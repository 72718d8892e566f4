/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/breakpoint.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void gw_breakpoint_take(struct gw_breakpoint *b, const char *run_dir)
{
    char path[128];
    FILE *file;

    b->line[0] = '\0';
    if (snprintf(path, sizeof path, "%s/breakpoint", run_dir) >= (int)sizeof path)
        return;
    file = fopen(path, "re");
    if (!file)
        return;
    if (!fgets(b->line, sizeof b->line, file))
        b->line[0] = '\0';
    b->line[strcspn(b->line, "\n")] = '\0';
    fclose(file);
    unlink(path);
}

void gw_breakpoint_at(struct gw_breakpoint *b, const struct gw_log *log, enum gw_role role,
                      const char *kind, const char *name)
{
    char here[sizeof b->line];

    if (!b->line[0])
        return;
    snprintf(here, sizeof here, "%s %s %s", role == GW_SOURCE ? "source" : "destination", kind,
             name);
    if (strcmp(here, b->line) != 0)
        return;
    b->line[0] = '\0';
    gw_log(log, GW_LOG_WARNING, "breakpoint", "stopped at: %s", here);
    raise(SIGSTOP);
}
