/* SPDX-License-Identifier: Apache-2.0 */
/* The input: how long the first frame is, one byte; that frame; the other one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/answers.h"
#include "util/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    gw_autofree uint8_t *first = NULL, *second = NULL;
    size_t n_first, n_second;

    if (n == 0)
        return 0;
    n_first = data[0] < n - 1 ? data[0] : n - 1;
    n_second = n - 1 - n_first;
    first = malloc(n_first + 1); /* apart, so that reading past one is seen */
    second = malloc(n_second + 1);
    if (!first || !second)
        return 0;
    memcpy(first + 1, data + 1, n_first);
    memcpy(second + 1, data + 1 + n_first, n_second);
    if (gw_frame_answers(&(struct gw_ether_frame){first + 1, n_first},
                         &(struct gw_ether_frame){second + 1, n_second}) &&
        (n_first < 14 || n_second < 14 || memcmp(first + 1, second + 7, 6) != 0))
        abort();
    return 0;
}
