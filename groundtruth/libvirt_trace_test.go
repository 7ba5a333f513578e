package groundtruth

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
)

// domainPlugin is the plugin where the QEMU of a domain, which may be another user's, can read it.
func domainPlugin(t *testing.T, l *labtest.Libvirt) string {
	t.Helper()
	path, err := plugin.Install(filepath.Join(l.Dir, plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	return path
}

// traceDomain takes events of a domain by each source: what a program in it does, until it was seen.
func traceDomain(t *testing.T, g *lab.Guest) {
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"calls", `mkdir("/tmp/seen-by-trace", 0777) = `, []string{"trace", "--syscalls", "mkdir"}},
		{"plugin", "sleep 0.0625", []string{"watch", "--source", "plugin", "--kinds", "exec"}},
		{"breakpoint", "sleep 0.0625", []string{"watch", "--source", "breakpoint", "--kinds", "exec"}},
		{"polling", "sleep 0.625", []string{"watch", "--source", "polling", "--kinds", "exec"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(command(t), append([]string{c.args[0], targetOf(g)}, c.args[1:]...)...)
			cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := make(chan string, 1000)
			go func() {
				for s := bufio.NewScanner(out); s.Scan(); {
					lines <- s.Text()
				}
				close(lines)
			}()
			defer func() {
				_ = cmd.Process.Signal(os.Interrupt)
				for range lines { // until it has ended
				}
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 130 && code != 0 || t.Failed() {
					t.Errorf("status %d: %s", code, stderr.String())
				}
			}()
			var seen []string
			for end := time.Now().Add(patience); time.Now().Before(end); {
				labtest.Output(t, g, "mkdir /tmp/seen-by-trace; rmdir /tmp/seen-by-trace; sleep 0.0625; sleep 0.625; echo ok")
				for quiet := time.After(time.Second); ; {
					select {
					case line, ok := <-lines:
						if strings.Contains(line, c.want) {
							return
						}
						if ok {
							seen = append(seen, line)
							continue
						}
						t.Fatal("it has ended")
					case <-quiet:
					}
					break
				}
			}
			t.Errorf("%q was not seen, but %q", c.want, seen)
		})
	}
}
