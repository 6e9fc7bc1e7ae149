// Looks for everything that a program may find where it runs, prints, and answers with what it found.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

extern char **environ;

// The contract as a component's core module sees it. Texts are a place and a length.
typedef struct { const char *at; size_t length; } text;

__attribute__((import_module("dossier:plugin/types@1.0.0"), import_name("[resource-drop]alert"))) void alert_drop(int32_t);
__attribute__((import_module("dossier:plugin/types@1.0.0"), import_name("[method]alert.text"))) void alert_text(
    int32_t alert, const char *pointer, size_t length, void *found);

#define ENRICHER "dossier:plugin/enricher@1.0.0#"

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size;
    (void)align;
    return realloc(old, size);
}

__attribute__((export_name(ENRICHER "describe"))) void *describe(void) {
    static struct { text name, version, summary; uint8_t stage; struct { uint8_t some; text text; } schema; } said = {
        {"looks-around", 12}, {"1.0.0", 5}, {"looks around", 12}, 1, {0}};
    return &said;
}

__attribute__((export_name(ENRICHER "configure"))) void *configure(const char *settings, size_t length) {
    static struct { uint8_t failed; text why; } answer;
    (void)settings;
    (void)length;
    return &answer;
}

// 0 when a file can be opened, else why not.
static int opened(const char *path, int how) {
    int file = open(path, how, 0600);
    return file < 0 ? errno : (close(file), 0);
}

static int listed(const char *path) {
    DIR *folder = opendir(path);
    return folder ? (closedir(folder), 0) : errno;
}

__attribute__((export_name(ENRICHER "enrich"))) void *enrich(int32_t alert) {
    static struct { uint8_t failed; text fields; void *observables; size_t count; uint8_t verdict; } answer;
    static char fields[1024];
    struct { uint8_t some; text text; } lines = {0};
    alert_text(alert, "/lines", 6, &lines);
    alert_drop(alert);

    size_t arguments = 0, size = 0, variables = 0;
    if (__wasi_args_sizes_get(&arguments, &size) != 0) arguments = 999;
    for (char **variable = environ; variable && *variable; variable++) variables++;
    char input[16];
    ssize_t read_bytes = read(0, input, sizeof input);

    unsigned char dice[8] = {0};
    int diced = getentropy(dice, sizeof dice);
    struct timespec now = {0}, before = {0}, after = {0}, hour = {3600, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_MONOTONIC, &before);
    int slept = nanosleep(&hour, NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);

    int count = lines.some && lines.text.length ? atoi(strndup(lines.text.at, lines.text.length)) : 1;
    for (int line = 0; line < count; line++) printf("on the standard output, line %d\n", line);
    fflush(stdout);
    fprintf(stderr, "on the standard error\n");

    answer.fields.at = fields;
    answer.fields.length = snprintf(
        fields, sizeof fields,
        "{\"file\":%d,\"written\":%d,\"folder\":%d,\"root\":%d,\"arguments\":%zu,\"variables\":%zu,\"path\":%s,\"input\":%zd,"
        "\"dice\":\"%d %02x%02x%02x%02x%02x%02x%02x%02x\",\"now\":%lld,\"before\":%lld,\"slept\":%d,"
        "\"passed\":%lld}",
        opened("/etc/passwd", O_RDONLY), opened("/tmp/written", O_WRONLY | O_CREAT), listed("."), listed("/"), arguments,
        variables, getenv("PATH") ? "true" : "false", read_bytes, diced, dice[0], dice[1], dice[2], dice[3],
        dice[4], dice[5], dice[6], dice[7], (long long)now.tv_sec, (long long)before.tv_sec * 1000000000 + before.tv_nsec,
        slept, (long long)(after.tv_sec - before.tv_sec));
    return &answer;
}
