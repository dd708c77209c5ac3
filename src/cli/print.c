/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several verbs print.
 */
#include <stdio.h>

#include "cli/cli.h"

void cli_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}
