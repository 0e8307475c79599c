/* Answers after one second. */
#include <string.h>
#include <unistd.h>

int main(void)
{
    static const char answer[] = "Content-Type: text/plain\r\n\r\nslept\n";

    sleep(1);
    return write(1, answer, strlen(answer)) < 0;
}
