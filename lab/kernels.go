package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Kernel is a kernel package in the cache: what a guest boots, and a source for symbols
// and types that does not come from the guest.
type Kernel struct {
	Name    string // as asked for: "6.12", "6.12-rt", or the path of a vmlinuz
	Release string // uname -r, for example "6.12.107+deb13-cloud-amd64"; "" for a path
	Version string // Debian's package version; "" for a path
	Suite   string // the Debian release it came from; "" for a path
	Vmlinuz string // the kernel image
	Modules string // the directory of its modules (…/lib/modules/RELEASE); "" for a path
}

// series are the kernels that the lab promises, each with the releases to look in, the
// first that has it wins.
var series = []struct {
	name     string
	releases []string
}{
	{"5.10", []string{"bullseye"}},
	{"6.1", []string{"bookworm"}},
	{"6.12", []string{"trixie", "bookworm-backports"}},
	{"7.2", []string{"sid"}},
}

// elsewhere is where to look for any other series, and for one that has moved.
var elsewhere = []string{"sid", "trixie-backports", "bookworm-backports", "bullseye-backports", "trixie", "bookworm", "bullseye", "experimental"}

// What is newest in Debian, beside what is being tried, and what is oldest.
const (
	debianNewest = "sid"
	debianNext   = "experimental"
	debianOldest = "bullseye"
)

// KernelNames lists the kernels that every lab knows; Options.Kernel may be any other
// series that Debian still carries.
func KernelNames() []string {
	var names []string
	for _, s := range series {
		names = append(names, s.name)
	}
	return names
}

// flavours are the kernels that Debian builds of one version, by what comes after the
// series in a kernel's name. Only signed ones: the others are named -unsigned.
var flavours = map[string]string{
	// Cloud kernels have virtio and serial drivers built in and are small.
	"":       `^linux-image-\d[^ ]*-cloud-amd64$`,
	"-rt":    `^linux-image-\d[^ ]*-rt-amd64$`, // CONFIG_PREEMPT_RT
	"-amd64": `^linux-image-\d[^ -]*(-\d+)?-amd64$`,
}

var kernelRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d+\.\d+)(-rt|-amd64|)$`) })

// splitName takes a kernel's name apart, into series and flavour.
func splitName(name string) (series, flavour string, ok bool) {
	m := kernelRE().FindStringSubmatch(name)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// FindKernel gives a kernel from the cache, or fetches the newest of its series.
func FindKernel(ctx context.Context, name string, progress io.Writer) (Kernel, error) {
	return findKernel(ctx, name, false, progress)
}

// UpdateKernel looks for a newer kernel of the series and fetches it. What was in the
// cache before stays there.
func UpdateKernel(ctx context.Context, name string, progress io.Writer) (Kernel, error) {
	return findKernel(ctx, name, true, progress)
}

func findKernel(ctx context.Context, name string, update bool, progress io.Writer) (Kernel, error) {
	if progress == nil {
		progress = io.Discard
	}
	if name == "" {
		name = DefaultKernel
	}
	if strings.Contains(name, "/") {
		path, err := filepath.Abs(name)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return Kernel{}, invalidf("lab: kernel: %w", err)
		}
		if err := bootable(path); err != nil {
			return Kernel{}, err
		}
		return Kernel{Name: name, Vmlinuz: path}, nil
	}
	if _, _, ok := splitName(name); !ok {
		return Kernel{}, invalidf("lab: unknown kernel %q: give a series (%s), optionally followed by -rt or -amd64, or the path of a vmlinuz, with a slash in it", name, strings.Join(KernelNames(), ", "))
	}
	dir, err := cacheDir("kernels")
	if err != nil {
		return Kernel{}, err
	}
	if k, err := cachedKernel(dir, name); err == nil && !update {
		return k, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "."+name+".lock"))
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if k, err := cachedKernel(dir, name); err == nil && !update {
		return k, nil // another process was quicker
	}
	return fetchKernel(ctx, dir, name, progress)
}

// bootable refuses a file that QEMU's -kernel cannot boot. It takes a bzImage, and ELF files with an entry for PVH or multiboot.
func bootable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lab: kernel: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return invalidf("lab: kernel %s: not a regular file", path)
	}
	const magic, at = "HdrS", 0x202 // Documentation/arch/x86/boot.rst
	head := make([]byte, at+len(magic))
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("lab: kernel: %w", err)
	}
	if head = head[:n]; strings.HasPrefix(string(head), "\x7fELF") || n == at+len(magic) && string(head[at:]) == magic {
		return nil
	}
	return invalidf("lab: kernel %s: not an x86 kernel: it has no boot header (%q at %#x): give a vmlinuz", path, magic, at)
}

// CachedKernels lists what needs no network.
func CachedKernels() ([]Kernel, error) {
	dir, err := cacheDir("kernels")
	if err != nil {
		return nil, err
	}
	var all []Kernel
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	for _, e := range entries {
		if _, _, ok := splitName(e.Name()); !ok {
			continue
		}
		if k, err := cachedKernel(dir, e.Name()); err == nil {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b Kernel) int { return compareVersions(a.Name, b.Name) })
	return all, nil
}

// cachedKernel reads what the link kernels/NAME stands for.
func cachedKernel(dir, name string) (Kernel, error) {
	home, err := filepath.EvalSymlinks(filepath.Join(dir, name))
	if err != nil {
		return Kernel{}, err
	}
	text, err := os.ReadFile(filepath.Join(home, "kernel.json"))
	if err != nil {
		return Kernel{}, err
	}
	var k Kernel
	if err := json.Unmarshal(text, &k); err != nil {
		return Kernel{}, err
	}
	k.Name = name
	k.Vmlinuz = filepath.Join(home, "vmlinuz")
	k.Modules = filepath.Join(home, "lib", "modules", k.Release)
	_, err = os.Stat(k.Vmlinuz)
	return k, err
}

// fetchKernel finds the newest kernel of a series, unpacks it and points the link
// kernels/NAME at it.
func fetchKernel(ctx context.Context, dir, name string, progress io.Writer) (Kernel, error) {
	of, _, _ := splitName(name)
	var failed []error
	seen, searched := map[string]bool{}, map[string]bool{}
	for _, release := range releasesFor(of) {
		if inNone(of, seen, searched) {
			break
		}
		fmt.Fprintf(progress, "looking for a %s kernel in Debian %s\n", name, release)
		k, err := fetchFrom(ctx, release, dir, name, seen, progress)
		if err == nil {
			return k, nil
		}
		if errors.Is(err, errNoKernel) {
			searched[release] = true
			continue
		}
		if ctx.Err() != nil {
			return Kernel{}, err
		}
		failed = append(failed, err)
	}
	if seen[of] || len(seen) == 0 { // it is there, or nothing is: the failures say why
		return Kernel{}, errors.Join(failed...)
	}
	for _, known := range KernelNames() {
		seen[known] = true
	}
	there := slices.SortedFunc(maps.Keys(seen), compareVersions)
	return Kernel{}, invalidf("lab: Debian has no kernel %s: it has %s", name, strings.Join(there, ", "))
}

// releasesFor are the releases to look for a series in, each once: those first that have it, or show that none has.
func releasesFor(of string) (releases []string) {
	oldest, newest := series[0].name, series[len(series)-1].name
	all := elsewhere
	for _, s := range series {
		if s.name == of {
			all = append(slices.Clone(s.releases), elsewhere...)
		}
	}
	switch {
	case compareVersions(of, newest) > 0:
		all = append([]string{debianNewest, debianNext}, elsewhere...)
	case compareVersions(of, oldest) < 0:
		all = append([]string{debianOldest}, elsewhere...)
	}
	for _, r := range all {
		if !slices.Contains(releases, r) {
			releases = append(releases, r)
		}
	}
	return releases
}

// inNone reports whether no release has a series, by the series that were seen in those that were searched: what is not in the newest ones and
// newer than all of theirs is in none, and neither is what is older than all of the oldest.
func inNone(of string, seen, searched map[string]bool) bool {
	newer, older := len(seen) > 0, len(seen) > 0
	for s := range seen {
		newer = newer && compareVersions(of, s) > 0
		older = older && compareVersions(of, s) < 0
	}
	return newer && searched[debianNewest] && searched[debianNext] || older && searched[debianOldest]
}

var errNoKernel = errors.New("no such kernel")

type candidate struct {
	Kernel
	packages []string
}

// fetchFrom fetches the newest kernel of a series from one release. The series that the
// release has are noted in seen.
func fetchFrom(ctx context.Context, release, dir, name string, seen map[string]bool, progress io.Writer) (Kernel, error) {
	a, err := openArchive(ctx, release)
	if err != nil {
		return Kernel{}, err
	}
	defer a.close()
	if err := a.update(ctx); err != nil {
		return Kernel{}, err
	}
	c, err := newestKernel(ctx, a, name, seen)
	if err != nil {
		return Kernel{}, err
	}
	fmt.Fprintf(progress, "fetching %s %s\n", c.Release, c.Version)
	return unpackKernel(ctx, dir, a, c)
}

func newestKernel(ctx context.Context, a *archive, name string, seen map[string]bool) (candidate, error) {
	of, flavour, _ := splitName(name)
	images, err := a.find(ctx, "linux-image-", regexp.MustCompile(flavours[flavour]).MatchString)
	if err != nil {
		return candidate{}, err
	}
	var fits []pkg
	for _, p := range images {
		if s := seriesOf(p.version); s != "" {
			seen[s] = true
			if s == of {
				fits = append(fits, p)
			}
		}
	}
	if len(fits) == 0 {
		return candidate{}, errNoKernel
	}
	newest := slices.MaxFunc(fits, func(a, b pkg) int {
		return cmp.Or(compareVersions(a.version, b.version), compareVersions(a.name, b.name))
	})
	c := candidate{packages: []string{newest.name}}
	// Since 7.x the image package only depends on one with the image and one with the modules.
	for _, dep := range newest.depends {
		if strings.HasPrefix(dep, "linux-binary-") || strings.HasPrefix(dep, "linux-modules-") {
			c.packages = append(c.packages, dep)
		}
	}
	c.Kernel = Kernel{
		Name:    name,
		Release: strings.TrimPrefix(newest.name, "linux-image-"),
		Version: newest.version,
		Suite:   a.release,
	}
	return c, nil
}

var leadingSeries = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:\d+:)?(\d+\.\d+)(?:\D|$)`)
})

// seriesOf gives "6.12" for "6.12.107-1".
func seriesOf(version string) string {
	if m := leadingSeries().FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return ""
}

func unpackKernel(ctx context.Context, dir string, a *archive, c candidate) (Kernel, error) {
	home := filepath.Join(dir, c.Release+"_"+strings.ReplaceAll(c.Version, ":", "_"))
	if _, err := os.Stat(filepath.Join(home, "kernel.json")); err != nil {
		tmp, err := os.MkdirTemp(dir, ".tmp-*")
		if err != nil {
			return Kernel{}, fmt.Errorf("lab: %w", err)
		}
		defer os.RemoveAll(tmp)
		if err := a.unpack(ctx, tmp, c.packages...); err != nil {
			return Kernel{}, err
		}
		if err := arrangeKernel(tmp, c.Kernel); err != nil {
			return Kernel{}, err
		}
		if err := os.Chmod(tmp, 0o755); err != nil {
			return Kernel{}, fmt.Errorf("lab: %w", err)
		}
		if err := publish(tmp, home); err != nil {
			return Kernel{}, err
		}
	}
	link := filepath.Join(dir, ".link-"+c.Name)
	os.Remove(link)
	if err := os.Symlink(filepath.Base(home), link); err != nil {
		return Kernel{}, fmt.Errorf("lab: %w", err)
	}
	if err := os.Rename(link, filepath.Join(dir, c.Name)); err != nil {
		return Kernel{}, fmt.Errorf("lab: %w", err)
	}
	return cachedKernel(dir, c.Name)
}

// arrangeKernel brings the old and the new layout of the packages to one: vmlinuz,
// lib/modules/RELEASE, kernel.json. The rest is dropped.
func arrangeKernel(root string, k Kernel) error {
	var image string
	for _, pattern := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"} {
		if found, _ := filepath.Glob(filepath.Join(root, pattern)); len(found) > 0 {
			image = found[0]
		}
	}
	if image == "" {
		return fmt.Errorf("lab: the package of %s has no vmlinuz: its layout is new to the lab", k.Release)
	}
	modules := filepath.Join(root, "lib", "modules")
	if _, err := os.Stat(modules); err != nil {
		if err := os.MkdirAll(filepath.Dir(modules), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := os.Rename(filepath.Join(root, "usr", "lib", "modules"), modules); err != nil {
			return fmt.Errorf("lab: the package of %s has no modules: %w", k.Release, err)
		}
		image = strings.Replace(image, filepath.Join(root, "usr", "lib"), filepath.Join(root, "lib"), 1)
	}
	if err := os.Rename(image, filepath.Join(root, "vmlinuz")); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, rest := range []string{"boot", "usr", "etc"} {
		if err := os.RemoveAll(filepath.Join(root, rest)); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return writeKernelFile(root, k)
}

// writeKernelFile writes what [cachedKernel] reads.
func writeKernelFile(root string, k Kernel) error {
	text, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return writeAtomic(filepath.Join(root, "kernel.json"), text)
}
