package check

import "testing"

func TestScriptAmong(t *testing.T) {
	for _, c := range []struct {
		interpreter string
		args        []string
		want        string
	}{
		{"sh", []string{"sh", "/dev/shm/x"}, "/dev/shm/x"},
		{"sh", []string{"/bin/sh", "x", "/dev/shm/data"}, "x"},
		{"sh", []string{"busybox", "sh", "./x"}, "./x"},
		{"sh", []string{"-sh"}, ""},
		{"bash", []string{"bash", "-c", "/dev/shm/x"}, ""},
		{"bash", []string{"bash", "-lc", "/dev/shm/x"}, ""},
		{"bash", []string{"bash", "-o", "pipefail", "-e", "/dev/shm/x"}, "/dev/shm/x"},
		{"bash", []string{"bash", "-p", "--norc", "/dev/shm/x"}, "/dev/shm/x"},
		{"python3.11", []string{"python3", "-E", "-W", "ignore", "/dev/shm/x.py"}, "/dev/shm/x.py"},
		{"python3", []string{"python3", "-m", "http.server"}, ""},
		{"perl", []string{"perl", "-w", "/dev/shm/x.pl"}, "/dev/shm/x.pl"},
		{"perl", []string{"perl", "-e", "1"}, ""},
		{"perl", []string{"perl", "-pe", "s/a/b/", "/dev/shm/data"}, ""},
		{"perl", []string{"perl", "-0777ne", "print", "/dev/shm/data"}, ""},
		{"perl", []string{"perl", "-lane", "print", "/dev/shm/data"}, ""},
		{"perl", []string{"perl", "-MTime::HiRes", "-i.old", "/dev/shm/x.pl"}, "/dev/shm/x.pl"},
		{"perl", []string{"perl", "-I", "lib", "-Ilib/e", "/dev/shm/x.pl"}, "/dev/shm/x.pl"},
		{"perl", []string{"perl", "-", "/dev/shm/data"}, ""},
		{"ruby", []string{"ruby", "-ne", "puts", "/dev/shm/data"}, ""},
		{"ruby", []string{"ruby", "-E", "UTF-8", "-rset", "-Wno-deprecated", "/dev/shm/x.rb"}, "/dev/shm/x.rb"},
		{"python3", []string{"python3", "-", "/dev/shm/data"}, ""},
		{"python3", []string{"python3", "-Bc", "pass", "/dev/shm/data"}, ""},
		{"python3", []string{"python3", "-Im", "x", "/dev/shm/data"}, ""},
		{"python3", []string{"python3", "-BX", "dev", "-Wmodule", "--", "/dev/shm/x.py"}, "/dev/shm/x.py"},
		{"node", []string{"node", "-pe", "1", "/dev/shm/data"}, ""},
		{"php8.2", []string{"php", "--", "/dev/shm/data"}, ""},
		{"bash", []string{"bash", "-s", "--", "/dev/shm/d"}, ""},
		{"bash", []string{"bash", "-es", "/dev/shm/d"}, ""},
		{"bash", []string{"bash", "-", "/dev/shm/x"}, "/dev/shm/x"},
		{"bash", []string{"bash", "-"}, ""},
		{"bash", []string{"bash", "-euo", "pipefail", "+x", "/dev/shm/x"}, "/dev/shm/x"},
		{"bash", []string{"bash", "--", "-c"}, "-c"},
		{"mawk", []string{"mawk", "{print}", "/dev/shm/data"}, ""},
		{"awk", []string{"awk", "-f", "/dev/shm/x.awk", "data"}, "/dev/shm/x.awk"},
		{"awk", []string{"awk", "-f"}, ""},
		{"sh", nil, ""},
	} {
		if got := scriptAmong(c.interpreter, c.args); got != c.want {
			t.Errorf("%q: the script is %q, not %q", c.args, got, c.want)
		}
	}
}

func TestOutOfPlace(t *testing.T) {
	for _, c := range []struct {
		name            string
		program, script Severity
	}{
		{"/usr/bin/x", "", ""},
		{"/dev/shm/x", High, High},
		{"/dev/fd/63", High, ""},
		{"/dev/pipes/EOF", High, ""},
		{"/dev/.x/y", High, High},
		{"/proc/self/fd/5", High, ""},
		{"/tmp/x", "", ""},
		{"/tmp/.x/y", Medium, Low},
		{"/usr/lib/.x/y", High, High},
		{"/usr/bin/.x", High, High},
		{"/boot/.x", High, High},
		{"/usr/lib/node_modules/x/node_modules/.pnpm/esbuild/bin/esbuild", "", ""},
		{"/usr/lib/node_modules/x/node_modules/.cache/y", "", ""},
		{"/usr/lib/.x/node_modules/.pnpm/y", High, High},
		{"/usr/lib64/python3.6/site-packages/numpy/.libs/libopenblas.so", "", ""},
		{"/usr/lib64/python3.6/site-packages/.x/y.so", High, High},
		{"/etc/.git/hooks/pre-commit", "", ""},
		{"/etc/.x", High, High},
		{"/usr/lib/debug/.build-id/ab/c.debug", "", ""},
		{"/usr/local/lib/.x/y", "", ""},
		{"/opt/x/.venv/bin/python3", "", ""},
		{"/var/.x", Medium, Medium},
		{"/var/lib/.x/y", Medium, Medium},
		{"/var/log/.x", Medium, Medium},
		{"/var/lib/jenkins/.cache/x", "", ""},
		{"/var/libx/.y", "", ""},
		{"/root/.local/bin/x", "", ""},
		{"relative/.x", "", ""},
		{"/run/x", "", ""}, // it depends on the file system
	} {
		if got, _ := outOfPlace(c.name); got != c.program {
			t.Errorf("program %s: %q, not %q", c.name, got, c.program)
		}
		if got, _ := scriptOutOfPlace(c.name); got != c.script {
			t.Errorf("script %s: %q, not %q", c.name, got, c.script)
		}
	}
}
