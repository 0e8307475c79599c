/* Says something at once, and the rest 0.3 s later. */
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    static const char first[] = "Content-Type: text/plain\r\n\r\nfirst\n", second[] = "second\n";
    struct timespec pause = {0, 300 * 1000 * 1000};

    if (write(1, first, strlen(first)) < 0)
        return 1;
    nanosleep(&pause, NULL);
    return write(1, second, strlen(second)) < 0;
}
