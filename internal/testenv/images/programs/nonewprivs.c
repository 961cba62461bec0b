/* Prints its effective user ID. Installed setuid root, it tells whether no_new_privs was set: with it the kernel
 * ignores the setuid bit. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", (int)geteuid());
	return 0;
}
