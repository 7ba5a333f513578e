package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// An archive is one Debian release seen through an apt of its own: its own lists, its own
// cache and an empty list of installed packages, all in our cache directory. The machine's
// apt is not touched, but its proxy settings and keyrings are used.
type archive struct {
	release string
	arch    string // Debian's name of an architecture
	dir     string
	close   func()
}

// openArchive sets up the private apt of one release, for example "bookworm", and keeps
// other processes out of it until close.
func openArchive(ctx context.Context, release string) (*archive, error) {
	return openArchiveFor(ctx, release, debianArch)
}

// debianArch is what guests are.
const debianArch = "amd64"

// openArchiveFor is openArchive for the packages of another architecture.
func openArchiveFor(ctx context.Context, release, arch string) (*archive, error) {
	name := release
	if arch != debianArch {
		name += "-" + arch
	}
	dir, err := cacheDir("apt", name)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("lab: apt: %w", err)
		}
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	a := &archive{release: release, arch: arch, dir: dir, close: unlock}
	if err := a.configure(); err != nil {
		unlock()
		return nil, err
	}
	return a, nil
}

func (a *archive) configure() error {
	// Check-Valid-Until: the lists of a release that Debian has archived stay valid; they
	// are still signed. Nothing here may run the machine's hooks, nor fetch what only a
	// software centre needs.
	conf := fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "%[1]s/debian.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Architecture "%[2]s";
APT::Architectures "%[2]s";
APT::Sandbox::User "";
APT::Get::List-Cleanup "true";
APT::Default-Release "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "2";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
`, a.dir, a.arch)
	if err := writeAtomic(filepath.Join(a.dir, "apt.conf"), []byte(conf)); err != nil {
		return err
	}
	return writeAtomic(filepath.Join(a.dir, "status"), nil)
}

// update fetches the lists of the release, with its security updates where there are any.
func (a *archive) update(ctx context.Context) error {
	m, err := machineMirror()
	if err != nil {
		return err
	}
	sources, full := m.main.deb822(a.release), m.allOf(a.release)
	if err := a.updateFrom(ctx, full); err != nil {
		if full == sources {
			return err
		}
		// An old release's security suite may be gone from this mirror.
		return a.updateFrom(ctx, sources)
	}
	return nil
}

func (a *archive) updateFrom(ctx context.Context, sources string) error {
	if err := writeAtomic(filepath.Join(a.dir, "debian.sources"), []byte(sources)); err != nil {
		return err
	}
	if _, err := a.run(ctx, a.dir, "apt-get", "-q", "update"); err != nil {
		return fmt.Errorf("lab: fetch the package lists of %s: %w", a.release, err)
	}
	return nil
}

// A pkg is a package of the archive.
type pkg struct {
	name, version string
	depends       []string // first choices only
}

// find lists the packages whose name begins with prefix and for which keep is true, each
// in its newest version.
func (a *archive) find(ctx context.Context, prefix string, keep func(name string) bool) ([]pkg, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "pkgnames", prefix)
	if err != nil {
		return nil, fmt.Errorf("lab: list the packages of %s: %w", a.release, err)
	}
	names := slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool { return !keep(name) })
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	out, err = a.run(ctx, a.dir, "apt-cache", append([]string{"--no-all-versions", "show"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("lab: show packages of %s: %w", a.release, err)
	}
	var found []pkg
	for s := range stanzas(bytes.NewReader(out)) {
		if s["package"] != "" && s["version"] != "" {
			found = append(found, pkg{s["package"], s["version"], firstDepends(s["depends"])})
		}
	}
	return found, nil
}

// unpack downloads packages and unpacks them into the directory root. apt checks what it
// downloads against the archive's signature.
func (a *archive) unpack(ctx context.Context, root string, names ...string) error {
	tmp, err := os.MkdirTemp(a.dir, "download-*")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := a.run(ctx, tmp, "apt-get", append([]string{"-q", "download"}, names...)...); err != nil {
		return fmt.Errorf("lab: download %s: %w", strings.Join(names, " "), err)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) < len(names) {
		return fmt.Errorf("lab: download %s: only %d packages came", strings.Join(names, " "), len(debs))
	}
	for _, deb := range debs {
		if _, err := run(ctx, tmp, nil, "dpkg-deb", "-x", deb, root); err != nil {
			return fmt.Errorf("lab: unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

func (a *archive) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	return run(ctx, dir, []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"},
		name, append([]string{"-c", filepath.Join(a.dir, "apt.conf")}, args...)...)
}

// run runs a tool and gives its output; an error ends with the last line it complained of.
func run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	return runTelling(ctx, io.Discard, dir, env, name, args...)
}

// runTelling is run, with a copy for tell of what the tool complains of, as it does.
func runTelling(ctx context.Context, tell io.Writer, dir string, env []string, name string, args ...string) ([]byte, error) {
	if _, err := exec.LookPath(name); err != nil {
		return nil, fmt.Errorf("%s is not installed: apt-get install %s", name, packageOf(name))
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&errs, tell)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", name, context.Cause(ctx))
		}
		return nil, fmt.Errorf("%s: %w: %s", name, err, complaint(errs.String()))
	}
	return out.Bytes(), nil
}

// complaint gives the last lines of what a tool wrote.
func complaint(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// packageOf names the Debian package of a tool.
func packageOf(tool string) string {
	switch tool {
	case "apt-get", "apt-cache":
		return "apt"
	case "dpkg-deb":
		return "dpkg"
	case "mke2fs":
		return "e2fsprogs"
	case "qemu-img":
		return "qemu-utils"
	case "qemu-system-x86_64":
		return "qemu-system-x86"
	}
	return tool
}
