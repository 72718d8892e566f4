/* SPDX-License-Identifier: Apache-2.0 */
#include "host/freepages.h"

#include <string.h>

#define FEATURE "VIRTIO_BALLOON_F_FREE_PAGE_HINT" /* QEMU goes on with ": " and an explanation */

const char *gw_hints_name(enum gw_hints hints)
{
    static const char *const names[] = {NULL, "none", "off", "on"};

    return names[hints];
}

const char *gw_hints_find_balloon(const json_t *devices)
{
    json_t *device;
    size_t i;

    json_array_foreach (devices, i, device) {
        const char *name = json_string_value(json_object_get(device, "name"));

        if (name && strcmp(name, "virtio-balloon") == 0)
            return json_string_value(json_object_get(device, "path"));
    }
    return NULL;
}

enum gw_hints gw_hints_of(const json_t *status)
{
    const json_t *guest = json_object_get(status, "guest-features");
    const json_t *features = json_object_get(guest, "dev-features");
    json_t *feature;
    size_t i;

    if (!json_is_object(guest))
        return GW_HINTS_UNKNOWN;
    json_array_foreach (features, i, feature) {
        const char *text = json_string_value(feature);

        if (text && strncmp(text, FEATURE, strlen(FEATURE)) == 0)
            return GW_HINTS_ON;
    }
    return GW_HINTS_NONE;
}

uint64_t gw_hints_not_sent(const struct gw_hints_sample *s, uint64_t not_sent_bytes)
{
    uint64_t n_pages = s->n_sent_pages + (s->round == 1 ? s->n_unseen_pages : 0);
    uint64_t accounted_bytes;

    if (s->round == 0 || __builtin_mul_overflow(n_pages, s->page_bytes, &accounted_bytes) ||
        (s->round == 1 &&
         __builtin_add_overflow(accounted_bytes, s->remaining_bytes, &accounted_bytes)) ||
        accounted_bytes >= s->total_bytes)
        return not_sent_bytes;
    accounted_bytes = s->total_bytes - accounted_bytes;
    return accounted_bytes > not_sent_bytes ? accounted_bytes : not_sent_bytes;
}
