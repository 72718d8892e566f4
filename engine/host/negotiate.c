/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "host/negotiate.h"
#include "util/cleanup.h"

enum side { SOURCE = 1, DESTINATION = 2, BOTH = 3 };

/* Capabilities that are switched on where they are offered; all others are switched off. */
static const struct {
    const char *name;
    enum side on;  /* where it has to be offered and is switched on */
    bool required; /* without it: refuse */
    const char *because;
} wanted[] = {
    {"events", SOURCE, true, "phases are followed by events, not by polling"},
    {"return-path", BOTH, true, "the source learns that the destination has loaded everything"},
    {"pause-before-switchover", SOURCE, true, "no guest runs twice: the engine decides the switch"},
    {"multifd", BOTH, false, "several connections carry memory at once"},
    {"postcopy-ram", BOTH, false, "QEMU then sends what the guest has free, too: it is compared"},
    {"switchover-ack", BOTH, false, "the guest is not paused before the destination is ready"},
    {"validate-uuid", BOTH, false, "the stream is refused if it is of another guest"},
    {"late-block-activate", DESTINATION, false, "disks are locked when the guest runs, not before"},
};

/* The destination's events come whether or not it has the capability; it is set where offered. */
static bool wants_on_destination_too(const char *name)
{
    return strcmp(name, "events") == 0;
}

static bool offers(const json_t *capabilities, const char *name)
{
    size_t i;
    json_t *entry;

    json_array_foreach (capabilities, i, entry) {
        const char *have = json_string_value(json_object_get(entry, "capability"));

        if (have && strcmp(have, name) == 0)
            return true;
    }
    return false;
}

json_t *gw_decision_new(const char *rule, json_t *inputs, const char *chosen,
                        const char *instead_of, const char *because)
{
    json_t *others = json_array();

    if (instead_of)
        json_array_append_new(others, json_string(instead_of));
    return json_pack("{s:s, s:o, s:s, s:o, s:s}", "rule", rule, "inputs",
                     inputs ? inputs : json_object(), "chosen", chosen, "instead_of", others,
                     "because", because);
}

static int switch_on(const char *name, enum side need, const struct gw_native_offer *source,
                     const struct gw_native_offer *destination, bool required,
                     struct gw_error *error)
{
    bool at_source = !(need & SOURCE) || offers(source->capabilities, name);
    bool at_destination = !(need & DESTINATION) || offers(destination->capabilities, name);

    if (at_source && at_destination)
        return 1;
    if (!required)
        return 0;
    gw_error_set(error, GW_E_INCOMPATIBLE, "QEMU on the %s does not offer the capability '%s'",
                 at_source ? "destination" : "source", name);
    return gw_error_hint(error, "Godwit needs QEMU 8.2 or newer on both nodes");
}

/* multifd cannot be beside postcopy-ram, which nobody wants for itself. */
static const char *why_unwanted(const char *name, const struct gw_native_wishes *wishes)
{
    if (strcmp(name, "postcopy-ram") == 0 && !wishes->all_pages)
        return "pages that the guest has free need not be sent";
    if (strcmp(name, "multifd") == 0 && wishes->all_pages)
        return "QEMU allows no postcopy-ram beside it";
    return NULL;
}

static bool needs_postcopy(const char *name, const struct gw_native_wishes *wishes)
{
    return wishes->all_pages && strcmp(name, "postcopy-ram") == 0;
}

static int choose_capabilities(const struct gw_native_offer *source,
                               const struct gw_native_offer *destination,
                               const struct gw_native_wishes *wishes, bool for_source,
                               struct gw_native_terms *terms, struct gw_error *error)
{
    const struct gw_native_offer *mine = for_source ? source : destination;
    enum side me = for_source ? SOURCE : DESTINATION;
    json_t *list = json_array(), *on = json_array(), *entry;
    size_t i;

    terms->capabilities = json_pack("{s:o}", "capabilities", list);
    for (unsigned w = 0; w < GW_ARRAY_SIZE(wanted); w++) {
        const char *unwanted;
        int yes = switch_on(wanted[w].name, wanted[w].on, source, destination,
                            wanted[w].required || needs_postcopy(wanted[w].name, wishes), error);

        if (yes < 0) {
            json_decref(on);
            return -1;
        }
        unwanted = why_unwanted(wanted[w].name, wishes);
        if (unwanted)
            yes = 0;
        if (strcmp(wanted[w].name, "multifd") == 0)
            terms->multifd = yes;
        if (yes && (wanted[w].on & me || wants_on_destination_too(wanted[w].name)))
            json_array_append_new(on, json_string(wanted[w].name));
        json_array_append_new(terms->decisions,
                              gw_decision_new("capability",
                                              json_pack("{s:s}", "capability", wanted[w].name),
                                              yes ? "on" : "off", yes ? "off" : "on",
                                              yes        ? wanted[w].because
                                              : unwanted ? unwanted
                                                         : "not offered by both QEMUs"));
    }
    json_array_foreach (mine->capabilities, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "capability"));
        bool state = false;
        json_t *chosen;
        size_t k;

        if (!name)
            continue;
        json_array_foreach (on, k, chosen)
            state |= strcmp(json_string_value(chosen), name) == 0;
        json_array_append_new(list,
                              json_pack("{s:s, s:b}", "capability", name, "state", (int)state));
    }
    json_decref(on);
    return 0;
}

static bool both_have(const struct gw_native_offer *source,
                      const struct gw_native_offer *destination, const char *parameter)
{
    return json_object_get(source->parameters, parameter) &&
           json_object_get(destination->parameters, parameter);
}

void gw_native_settle(struct gw_native_wishes *wishes)
{
    if (wishes->auto_codec)
        wishes->zstd = wishes->carrier;
    if (wishes->auto_channels)
        wishes->channels = wishes->carrier || wishes->zstd ? 2 : 1;
}

static const char *why_codec(const struct gw_native_wishes *wishes,
                             const struct gw_native_terms *terms)
{
    if (wishes->zstd && !wishes->carrier && !terms->zstd)
        return wishes->all_pages
                   ? "QEMU compresses only on multifd channels, and there are none"
                   : "QEMU compresses only on multifd channels with zstd built in, which one lacks";
    if (!wishes->auto_codec)
        return "asked for";
    return wishes->carrier ? "the carrier has a level for each batch that suits link and "
                             "processors, or none"
                           : "QEMU would compress all with one level, whatever link and processors "
                             "do: only where it is asked for";
}

static void choose_codec(const struct gw_native_offer *source,
                         const struct gw_native_offer *destination,
                         const struct gw_native_wishes *wishes, struct gw_native_terms *terms)
{
    const char *asked = wishes->auto_codec ? "auto" : wishes->zstd ? "zstd" : "none";
    bool zstd;

    terms->zstd = wishes->zstd && !wishes->carrier && terms->multifd &&
                  both_have(source, destination, "multifd-zstd-level");
    zstd = terms->zstd || (wishes->carrier && wishes->zstd);
    terms->codec = zstd ? "zstd" : "none";
    json_array_append_new(terms->decisions,
                          gw_decision_new("codec",
                                          json_pack("{s:s, s:s, s:b}", "wanted", asked, "route",
                                                    wishes->carrier ? "carrier" : "native",
                                                    "multifd", (int)terms->multifd),
                                          terms->codec, zstd ? "none" : "zstd",
                                          why_codec(wishes, terms)));
}

static void choose_channels(const struct gw_native_wishes *wishes, struct gw_native_terms *terms)
{
    char chosen[16];

    if (!terms->multifd)
        return;
    snprintf(chosen, sizeof chosen, "%u", (unsigned)wishes->channels);
    json_array_append_new(
        terms->decisions,
        gw_decision_new("channels",
                        json_pack("{s:s, s:s}", "route", wishes->carrier ? "carrier" : "native",
                                  "codec", terms->codec),
                        chosen, wishes->channels == 1 ? "2" : "1",
                        !wishes->auto_channels ? "asked for"
                        : wishes->channels > 1 ? "each can encode pages on a thread of its own"
                                               : "one sends them as fast as QEMU finds them"));
}

static void choose_parameters(const struct gw_native_offer *source,
                              const struct gw_native_offer *destination,
                              const struct gw_native_wishes *wishes, struct gw_native_terms *terms)
{
    /* QEMU takes 0 for "stop", so "as fast as it goes" is the largest value it accepts in a size_t.
     */
    json_int_t bandwidth = wishes->bandwidth_bytes_per_s && !wishes->carrier
                               ? (json_int_t)wishes->bandwidth_bytes_per_s
                               : INT64_MAX;

    terms->parameters = json_pack("{s:I, s:I}", "max-bandwidth", bandwidth, "downtime-limit",
                                  (json_int_t)wishes->blackout_ms);
    if (!terms->multifd)
        return;
    json_object_set_new(terms->parameters, "multifd-channels",
                        json_integer((json_int_t)wishes->channels));
    json_object_set_new(terms->parameters, "multifd-compression",
                        json_string(terms->zstd ? "zstd" : "none"));
    if (terms->zstd)
        json_object_set_new(terms->parameters, "multifd-zstd-level",
                            json_integer((json_int_t)wishes->zstd_level));
    terms->zero_pages = both_have(source, destination, "zero-page-detection");
    if (terms->zero_pages)
        json_object_set_new(terms->parameters, "zero-page-detection", json_string("multifd"));
}

static int check_offer(const struct gw_native_offer *offer, const char *side,
                       struct gw_error *error)
{
    if (json_is_array(offer->capabilities) && json_array_size(offer->capabilities) <= 256 &&
        json_is_object(offer->parameters))
        return 0;
    return gw_error_set(error, GW_E_PROTOCOL,
                        "what QEMU on the %s says of its capabilities is malformed", side);
}

struct gw_native_offer gw_native_offer_of(const json_t *facts)
{
    const json_t *offer = json_object_get(facts, "offer");

    return (struct gw_native_offer){json_object_get(offer, "capabilities"),
                                    json_object_get(offer, "parameters")};
}

int gw_native_negotiate(const struct gw_native_offer *source,
                        const struct gw_native_offer *destination,
                        const struct gw_native_wishes *wishes, bool for_source,
                        struct gw_native_terms *terms, struct gw_error *error)
{
    memset(terms, 0, sizeof *terms);
    if (check_offer(source, "source", error) < 0 ||
        check_offer(destination, "destination", error) < 0)
        return -1;
    terms->decisions = json_array();
    if (choose_capabilities(source, destination, wishes, for_source, terms, error) < 0) {
        gw_native_terms_fini(terms);
        return -1;
    }
    if (wishes->carrier && wishes->all_pages) {
        gw_native_terms_fini(terms);
        gw_error_set(error, GW_E_UNSUPPORTED,
                     "the guest's balloon tells QEMU which pages are free, and with multifd, which "
                     "the carrier needs, QEMU cannot be made to send those all the same");
        return gw_error_hint(error, "verify with --route native, without --verify use any route, "
                                    "or give the VM no balloon (balloon: none)");
    }
    if (wishes->carrier && !terms->multifd) {
        gw_native_terms_fini(terms);
        gw_error_set(error, GW_E_INCOMPATIBLE, "the carrier needs QEMU's multifd on both nodes");
        return gw_error_hint(error, "use --route native");
    }
    choose_codec(source, destination, wishes, terms);
    choose_channels(wishes, terms);
    choose_parameters(source, destination, wishes, terms);
    return 0;
}

json_t *gw_native_default_capabilities(void)
{
    json_t *list = json_array();

    for (unsigned w = 0; w < GW_ARRAY_SIZE(wanted); w++)
        json_array_append_new(list,
                              json_pack("{s:s, s:b}", "capability", wanted[w].name, "state", 0));
    return json_pack("{s:o}", "capabilities", list);
}

json_t *gw_native_default_parameters(void)
{
    /* the last one is what a migration that is no more has said; 0: QEMU measures by itself */
    return json_pack("{s:i, s:i, s:i}", "max-bandwidth", 128 << 20, "downtime-limit", 300,
                     "avail-switchover-bandwidth", 0);
}

void gw_native_terms_fini(struct gw_native_terms *terms)
{
    json_decref(terms->capabilities);
    json_decref(terms->parameters);
    json_decref(terms->decisions);
    memset(terms, 0, sizeof *terms);
}
