/* SPDX-License-Identifier: Apache-2.0 */
/* Transport URIs, which are untrusted text. The form is described at gw_transport_open(). */
#ifndef GW_TRANSPORTS_URI_H
#define GW_TRANSPORTS_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "godwit/error.h"

enum {
    GW_URI_MAX = 1024, /* bytes of a URI */
    GW_URI_LAYERS_MAX = 8,
    GW_URI_ADDRESSES_MAX = 16,
    GW_URI_WORD_MAX = 63, /* bytes of an address or a name */
    GW_URI_PARAMS_MAX = 24,
};

typedef char gw_uri_word[GW_URI_WORD_MAX + 1];

struct gw_uri {
    char layers[GW_URI_LAYERS_MAX][16]; /* wrappers, the transport last */
    unsigned n_layers;
    gw_uri_word addresses[GW_URI_ADDRESSES_MAX]; /* without brackets */
    unsigned n_addresses;
    bool has_port;
    uint16_t port;
    struct gw_uri_param {
        char key[24];
        char value[GW_URI_MAX];
        bool used; /* some layer has asked for it */
    } params[GW_URI_PARAMS_MAX];
    unsigned n_params;
};

/* 0; or -1 with *error (GW_E_USAGE). */
int gw_uri_parse(const char *text, struct gw_uri *uri, struct gw_error *error);

/* The value of a key, marked as used; NULL where it is not given. */
const char *gw_uri_get(struct gw_uri *uri, const char *key);

/* What numbers of a key count. */
enum gw_uri_unit {
    GW_URI_COUNT,
    GW_URI_BYTES,
    GW_URI_RATE, /* bytes a second */
    GW_URI_MS,
};

struct gw_uri_number {
    const char *key;
    enum gw_uri_unit unit;
    uint64_t min, max;
    uint64_t *valuep; /* keeps its value where the key is not given */
};

/* Reads all of these. 0; or -1 with *error (GW_E_USAGE). */
int gw_uri_numbers(struct gw_uri *uri, const struct gw_uri_number *numbers, unsigned n_numbers,
                   struct gw_error *error);

/* yes or no. 0; or -1 with *error. */
int gw_uri_bool(struct gw_uri *uri, const char *key, bool *valuep, struct gw_error *error);

/* Takes a list of addresses apart: how many, or -1 with *error. */
int gw_uri_addresses(const char *text, gw_uri_word addresses[GW_URI_ADDRESSES_MAX],
                     struct gw_error *error);

/* 0 if every key was used; -1 with *error that names one which was not. */
int gw_uri_all_used(const struct gw_uri *uri, struct gw_error *error);

#endif
