/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text in which systems say what they boot: grub.cfg as grub-mkconfig writes it, entries of the Boot Loader
 * Specification, /etc/default/grub.
 *
 * grub.cfg is a program; no attempt is made to run it. What generators write is a list of `menuentry { linux ...; initrd ... }`
 * blocks and a `set default="0"`, and that is what is read. A value that needs evaluation ($...) is left out.
 * Pure functions of text that ends with a zero byte; nothing is trusted about it but that.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/boot/disk.h"

#define WORD_MAX DISK_OPTIONS_MAX

bool disk_menu_add(char options[DISK_OPTIONS_MAX], const char *what)
{
	size_t have = strlen(options), more = strlen(what);

	if (more == 0)
		return true;
	if (have + (have ? 1 : 0) + more >= DISK_OPTIONS_MAX)
		return false;
	if (have)
		options[have++] = ' ';
	memcpy(options + have, what, more + 1);
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Takes the next word of a line in shell syntax, quotes and backslashes removed; false at the end of the line. A word that is
 * too long is cut. *expands tells that it contains a `$` that a shell would act upon. */
static bool next_word(const char **pos, char word[WORD_MAX], bool *expands)
{
	const char *p = *pos;
	size_t n = 0;
	char quote = 0;

	*expands = false;
	while (is_blank(*p))
		p++;
	if (*p == 0 || *p == '\n' || *p == '#')
		return false;
	for (; *p && *p != '\n'; p++) {
		char c = *p;

		if (quote && c == quote) {
			quote = 0;
			continue;
		}
		if (!quote && (c == '"' || c == '\'')) {
			quote = c;
			continue;
		}
		if (!quote && (is_blank(c) || c == ';'))
			break;
		if (c == '\\' && quote != '\'' && p[1] && p[1] != '\n')
			c = *++p;
		else if (c == '$' && quote != '\'')
			*expands = true;
		if (n < WORD_MAX - 1)
			word[n++] = c;
	}
	if (*p == ';')
		p++;
	word[n] = 0;
	*pos = p;
	return true;
}

static const char *next_line(const char *p)
{
	p = strchr(p, '\n');
	return p ? p + 1 : NULL;
}

/* A path without the device that GRUB may have in front of it: "(hd0,gpt1)/vmlinuz", "($root)/vmlinuz". */
static bool take_path(char dst[DISK_PATH_MAX], const char *word)
{
	if (*word == '(') {
		word = strchr(word, ')');
		if (!word)
			return false;
		word++;
	}
	if (*word != '/' || strlen(word) >= DISK_PATH_MAX)
		return false;
	memcpy(dst, word, strlen(word) + 1);
	return true;
}

/* The rest of a line, word by word; words that would have to be evaluated are left out. */
static void take_options(const char **pos, char options[DISK_OPTIONS_MAX])
{
	char word[WORD_MAX];
	bool expands;

	while (next_word(pos, word, &expands))
		if (!expands)
			(void)disk_menu_add(options, word); /* too long: the rest is lost, as with GRUB */
}

/* --- grub.cfg --------------------------------------------------------------------------------------------------------- */

struct grub {
	struct disk_entry *e;
	long chosen, seen;     /* index of the entry wanted; entries at the outermost level so far */
	int depth, inside;     /* braces open; inside = depth of the block of the chosen entry, 0 = not in it */
	bool done;
};

static bool is_linux(const char *word)
{
	return !strcmp(word, "linux") || !strcmp(word, "linux16") || !strcmp(word, "linuxefi");
}

static bool is_initrd(const char *word)
{
	return !strcmp(word, "initrd") || !strcmp(word, "initrd16") || !strcmp(word, "initrdefi");
}

static void grub_command(struct grub *g, const char *word, const char **pos)
{
	char path[WORD_MAX];
	bool expands;

	if (!strcmp(word, "menuentry") || !strcmp(word, "submenu")) {
		if (g->depth == 0 && g->seen++ == g->chosen && !g->done)
			g->inside = 1;
	} else if (g->inside && is_linux(word) && !g->e->kernel[0]) {
		if (next_word(pos, path, &expands) && take_path(g->e->kernel, path))
			take_options(pos, g->e->options);
	} else if (g->inside && is_initrd(word) && g->e->kernel[0] && !g->e->initrd[0]) {
		if (next_word(pos, path, &expands))
			(void)take_path(g->e->initrd, path);
	}
}

static void grub_line(struct grub *g, const char *line)
{
	char word[WORD_MAX];
	bool expands, first = true;

	while (next_word(&line, word, &expands)) {
		if (!strcmp(word, "{")) {
			g->depth++;
		} else if (!strcmp(word, "}")) {
			g->depth -= g->depth > 0;
			/* The first entry of a submenu is the one that counts; so is the only one of an entry. */
			if (g->inside && (g->depth == 0 || g->e->kernel[0])) {
				g->inside = 0;
				g->done = true;
			}
		} else if (first) {
			grub_command(g, word, &line);
		}
		first = false;
	}
}

/* The last `set default="N"` with a plain number; whatever else it is set to needs GRUB's state, so it is the first entry. */
static long grub_default(const char *text)
{
	long chosen = 0;

	for (const char *line = text; line; line = next_line(line)) {
		char word[WORD_MAX], *end;
		const char *p = line;
		bool expands;
		long n;

		if (!next_word(&p, word, &expands) || strcmp(word, "set") || !next_word(&p, word, &expands) ||
		    strncmp(word, "default=", 8))
			continue;
		n = strtol(word + 8, &end, 10);
		if (end != word + 8 && (*end == 0 || *end == '>') && n >= 0)
			chosen = n;
	}
	return chosen;
}

static bool grub_entry(const char *text, long chosen, struct disk_entry *e)
{
	struct grub g = {.e = e, .chosen = chosen};

	*e = (struct disk_entry){0};
	for (const char *line = text; line && !g.done; line = next_line(line))
		grub_line(&g, line);
	return e->kernel[0];
}

bool disk_menu_grub(const char *text, struct disk_entry *e)
{
	long chosen = grub_default(text);

	return grub_entry(text, chosen, e) || (chosen != 0 && grub_entry(text, 0, e));
}

/* --- Boot Loader Specification, type 1 ------------------------------------------------------------------------------- */

bool disk_menu_bls(const char *text, struct disk_entry *e)
{
	*e = (struct disk_entry){0};
	for (const char *line = text; line; line = next_line(line)) {
		char word[WORD_MAX];
		const char *p = line;
		bool expands;

		if (!next_word(&p, word, &expands))
			continue;
		if (!strcmp(word, "options")) {
			take_options(&p, e->options);
		} else if (!strcmp(word, "linux") && !e->kernel[0]) {
			if (next_word(&p, word, &expands))
				(void)take_path(e->kernel, word);
		} else if (!strcmp(word, "initrd") && !e->initrd[0]) {
			if (next_word(&p, word, &expands) && !expands)
				(void)take_path(e->initrd, word);
		}
	}
	return e->kernel[0];
}

/* --- /etc/default/grub ------------------------------------------------------------------------------------------------- */

/* The value last assigned to `name`, quotes removed; empty if there is none. */
static void assigned(const char *text, const char *name, char value[WORD_MAX])
{
	size_t len = strlen(name);

	value[0] = 0;
	for (const char *line = text; line; line = next_line(line)) {
		char word[WORD_MAX];
		const char *p = line;
		bool expands;

		if (next_word(&p, word, &expands) && !expands && !strncmp(word, name, len) && word[len] == '=')
			memcpy(value, word + len + 1, strlen(word + len + 1) + 1);
	}
}

void disk_menu_defaults(const char *text, char options[DISK_OPTIONS_MAX])
{
	char value[WORD_MAX];

	options[0] = 0;
	assigned(text, "GRUB_CMDLINE_LINUX", value);
	(void)disk_menu_add(options, value);
	assigned(text, "GRUB_CMDLINE_LINUX_DEFAULT", value);
	(void)disk_menu_add(options, value);
}

/* --- versions ----------------------------------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Compares the numbers that a and b begin with, however long, and moves past them. */
static int compare_numbers(const char **a, const char **b)
{
	size_t la, lb;
	int cmp;

	while (**a == '0')
		(*a)++;
	while (**b == '0')
		(*b)++;
	la = strspn(*a, "0123456789");
	lb = strspn(*b, "0123456789");
	cmp = la != lb ? (la < lb ? -1 : 1) : strncmp(*a, *b, la);
	*a += la;
	*b += lb;
	return cmp;
}

/* '~' before the end, the end before all else. */
static int rank(char c)
{
	return c == '~' ? -1 : (unsigned char)c;
}

int disk_menu_compare(const char *a, const char *b)
{
	while (*a || *b) {
		if (is_digit(*a) && is_digit(*b)) {
			int cmp = compare_numbers(&a, &b);

			if (cmp)
				return cmp;
			continue;
		}
		if (*a != *b)
			return rank(*a) < rank(*b) ? -1 : 1;
		a++;
		b++;
	}
	return 0;
}
