/* SPDX-License-Identifier: Apache-2.0 */
#include "util/shmem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/cleanup.h"

int gw_shmem_new(uint64_t n_bytes)
{
    gw_autoclose int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)n_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -errno;
    return gw_steal_fd(&fd);
}

bool gw_shmem_parse_enabled(const char *text)
{
    const char *at = strchr(text, '[');

    return at && strncmp(at, "[never]", 7) != 0 && strncmp(at, "[deny]", 6) != 0;
}

bool gw_shmem_huge_pages(void)
{
    gw_autoclose int fd =
        open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
    char text[128];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (n < 0)
        return false;
    text[n] = '\0';
    return gw_shmem_parse_enabled(text);
}
