package guests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// readlineProgram remembers more lines than it may, with the readline that it is linked with,
// and writes down what that says of them, as bash's history does.
const readlineProgram = `#include <stdio.h>
#include <unistd.h>
typedef struct { char *line, *timestamp; void *data; } HIST_ENTRY;
extern void using_history(void), add_history(const char *), stifle_history(int);
extern HIST_ENTRY **history_list(void);
extern int history_base, history_length;

int main(int argc, char **argv)
{
	char path[256], final[256], line[64];
	using_history();
	stifle_history(20);
	for (int i = 1; i <= 62; i++) {
		snprintf(line, sizeof line, "echo line %d", i);
		add_history(line);
	}
	snprintf(path, sizeof path, "%s/.history.%d", argv[argc - 1], getpid());
	snprintf(final, sizeof final, "%s/history.%d", argv[argc - 1], getpid());
	FILE *f = fopen(path, "w");
	for (int i = 0; i < history_length; i++)
		fprintf(f, "%5d  %s %s\n", history_base + i, history_list()[i]->timestamp + 1, history_list()[i]->line);
	fclose(f);
	rename(path, final);
	for (;;)
		pause();
}
`

// shellFiles put shells into a guest, below /shells, of which the server starts each: 64-bit
// ones that are linked statically, 32-bit ones below /shells/i386, and one with a shared
// readline where the host can make it.
func shellFiles(t testing.TB, libraries bool) map[string]string {
	t.Helper()
	files := map[string]string{}
	for arch, shells := range map[string][]string{"amd64": {"bash-static", "zsh-static"}, "i386": {"bash-static", "zsh-static", "busybox"}} {
		root, err := lab.Unpacked(t.Context(), arch, "bash-static", "zsh-static", "busybox-static")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range shells {
			files[filepath.Join("/shells", arch, name)] = filepath.Join(root, "usr/bin", name)
		}
	}
	program := filepath.Join(t.TempDir(), "bash")
	c := exec.Command("gcc", "-w", "-O2", "-xc", "-", "-o", program, "-l:libreadline.so.8")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		return files // no compiler
	}
	if _, err := in.Write([]byte(readlineProgram)); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if err := c.Wait(); err != nil {
		return files // no readline
	}
	if st, err := os.Stat(program); err != nil || st.Size() == 0 {
		t.Fatal(err)
	}
	files["/shells/readline/bash"] = program
	if libraries {
		for _, path := range librariesOf(t, program) {
			files[path] = path
		}
	}
	return files
}
