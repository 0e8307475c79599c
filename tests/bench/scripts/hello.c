/* The smallest useful script: what is measured with it is the server. */
#include <string.h>
#include <unistd.h>

int main(void)
{
    static const char answer[] = "Content-Type: text/plain\r\n\r\nhello, world\n";
    return write(1, answer, strlen(answer)) == (ssize_t)strlen(answer) ? 0 : 1;
}
