/*
 * Profiles in, programs out, by libseccomp: the oracle of root_seccomp.rs.
 *
 * The library is opened by its run-time name, so that neither its headers nor
 * its development package are needed. One command per line on stdin:
 *
 *   resolve ARCH NAME                   -> "NUMBER\n"
 *   init ACTION                         starts a profile
 *   arch ARCH                           adds an architecture
 *   rule ACTION NAME COUNT (INDEX OP A B)*
 *   export                              -> "WORDS" and the program, one
 *                                          instruction as a number each, "\n"
 * A failure is answered by "error ..." where a program was expected.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct comparison { unsigned int arg; int op; uint64_t a, b; };

static void *(*init)(uint32_t);
static void (*release)(void *);
static int (*arch_add)(void *, uint32_t);
static int (*rule_add)(void *, uint32_t, int, unsigned int, const struct comparison *);
static int (*resolve)(const char *);
static int (*resolve_arch)(uint32_t, const char *);
static int (*export_bpf)(const void *, int);

static void *symbol(void *library, const char *name)
{
	void *found = dlsym(library, name);
	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	return found;
}

static void open_library(void)
{
	void *library = dlopen("libseccomp.so.2", RTLD_NOW);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	init = symbol(library, "seccomp_init");
	release = symbol(library, "seccomp_release");
	arch_add = symbol(library, "seccomp_arch_add");
	rule_add = symbol(library, "seccomp_rule_add_array");
	resolve = symbol(library, "seccomp_syscall_resolve_name");
	resolve_arch = symbol(library, "seccomp_syscall_resolve_name_arch");
	export_bpf = symbol(library, "seccomp_export_bpf");
}

static void write_program(void *filter)
{
	FILE *file = tmpfile();
	uint64_t instruction;
	int error = file ? export_bpf(filter, fileno(file)) : -1;
	if (error) {
		printf("error export %d\n", error);
		return;
	}
	rewind(file);
	printf("program");
	while (fread(&instruction, sizeof(instruction), 1, file) == 1)
		printf(" %llu", (unsigned long long)instruction);
	printf("\n");
	fclose(file);
}

int main(void)
{
	char word[16], name[128];
	void *filter = NULL;
	unsigned long value, count;
	int error = 0;

	open_library();
	while (scanf("%15s", word) == 1) {
		if (!strcmp(word, "resolve") && scanf("%lu %127s", &value, name) == 2) {
			printf("%d\n", resolve_arch(value, name));
		} else if (!strcmp(word, "init") && scanf("%lu", &value) == 1) {
			if (filter)
				release(filter);
			filter = init(value);
			error = filter ? 0 : -1;
		} else if (!strcmp(word, "arch") && scanf("%lu", &value) == 1) {
			/* The native one is there already, which is an error to ignore. */
			if (filter)
				arch_add(filter, value);
		} else if (!strcmp(word, "rule")
			   && scanf("%lu %127s %lu", &value, name, &count) == 3 && count <= 6) {
			struct comparison args[6];
			unsigned long long a, b;
			for (unsigned long i = 0; i < count; i++) {
				if (scanf("%u %d %llu %llu", &args[i].arg, &args[i].op, &a, &b) != 4)
					return 3;
				args[i].a = a;
				args[i].b = b;
			}
			/* Unknown names are left out, as runtimes do. */
			int number = resolve(name);
			if (filter && !error && number != -1)
				error = rule_add(filter, value, number, count, args);
		} else if (!strcmp(word, "export")) {
			if (!filter || error)
				printf("error rule %d\n", error);
			else
				write_program(filter);
		} else {
			return 3;
		}
		fflush(stdout);
	}
	return 0;
}
