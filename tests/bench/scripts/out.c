/* Writes as many bytes as its query says: "bytes=N", with a Content-Length when it is "bytes=N&length=1". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char piece[64 * 1024];

static void put(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(1, data, size);
        if (written <= 0)
            exit(1);
        data += written;
        size -= (size_t)written;
    }
}

int main(void)
{
    const char *query = getenv("QUERY_STRING");
    unsigned long long left = 0;
    char head[128];

    if (!query || sscanf(query, "bytes=%llu", &left) != 1)
        return 1;
    strcpy(head, "Content-Type: application/octet-stream\r\n\r\n");
    if (strstr(query, "&length=1"))
        snprintf(head, sizeof head, "Content-Type: application/octet-stream\r\nContent-Length: %llu\r\n\r\n", left);
    put(head, strlen(head));
    memset(piece, 'x', sizeof piece);
    while (left > 0) {
        size_t size = left < sizeof piece ? (size_t)left : sizeof piece;
        put(piece, size);
        left -= size;
    }
    return 0;
}
