/* Preloaded into a process of a pod: names are found in the file $NAMES, a line "ADDRESS NAME" for each, and else where they always are.
 *
 * libnss_wrapper, which would do, keeps what it read in a table that two threads may not build anew at once: a service that looks two
 * names up while a pod comes back under another address dies in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("NAMES");
    FILE *file = name && path ? fopen(path, "re") : NULL;
    char address[64], listed[256];
    int known = 0;
    while (file && !known && fscanf(file, "%63s %255s", address, listed) == 2)
        known = !strcmp(name, listed);
    if (file)
        fclose(file);
    return real(known ? address : name, service, hints, found);
}
