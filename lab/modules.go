package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/ulikunitz/xz"
)

// maxModule bounds what a compressed module may unpack to.
const maxModule = 64 << 20

// moduleRE is a module's name with parameters. A shell reads them: nothing but plain
// characters will do.
var moduleRE = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_-]+( +[A-Za-z0-9_.-]+=[A-Za-z0-9_.,:/-]*)*$`)
})

// addModules puts kernel modules, and those that they need, into the initramfs in the
// order in which init loads them, with their parameters. One that the kernel package does not
// have is taken to be built in: see absentModules.
func addModules(c *cpioWriter, k Kernel, wanted []string) error {
	if len(wanted) == 0 {
		return nil
	}
	if k.Modules == "" {
		return fmt.Errorf("lab: kernel %s comes without modules (%s are needed): name a series such as %q", k.Name, strings.Join(wanted, ", "), DefaultKernel)
	}
	files, err := moduleFiles(k)
	if err != nil {
		return err
	}
	l := moduleLoader{files: files, data: map[string][]byte{}}
	parameters := map[string]string{}
	for _, module := range wanted {
		name, rest, _ := strings.Cut(module, " ")
		if rest = strings.TrimSpace(rest); rest != "" {
			parameters[moduleName(name)] = " " + rest
		}
		if err := l.need(moduleName(name)); err != nil {
			return fmt.Errorf("lab: modules of %s: %w", k.Release, err)
		}
	}
	var load strings.Builder
	for _, name := range l.order {
		path := "/lib/modules/" + name + ".ko"
		c.file(path, 0o644, string(l.data[name]))
		load.WriteString(path + parameters[name] + "\n")
	}
	c.file("/lib/load", 0o644, load.String())
	return nil
}

// moduleFiles are the modules of the kernel package, by name.
func moduleFiles(k Kernel) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			files[moduleName(name)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lab: modules of %s: %w", k.Release, err)
	}
	return files, nil
}

// absentModules are those that the kernel has not at all, neither as a module nor built in.
func absentModules(k Kernel, wanted []string) (names []string) {
	if len(wanted) == 0 {
		return nil
	}
	builtIn, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	files, err2 := moduleFiles(k)
	if err != nil || err2 != nil {
		return nil
	}
	for _, module := range wanted {
		name, _, _ := strings.Cut(module, " ")
		name = moduleName(name)
		if _, there := files[name]; !there && !strings.Contains(moduleName(string(builtIn)), "/"+name+".ko") {
			names = append(names, name)
		}
	}
	return names
}

// moduleName brings the two spellings of a module's name to one.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

type moduleLoader struct {
	files map[string]string
	data  map[string][]byte // nil while what it needs is being looked at
	order []string
}

func (l *moduleLoader) need(name string) error {
	path, ok := l.files[name]
	if _, seen := l.data[name]; seen || !ok {
		return nil
	}
	l.data[name] = nil
	data, err := readModule(path)
	if err != nil {
		return err
	}
	for _, other := range moduleDepends(data) {
		if err := l.need(other); err != nil {
			return err
		}
	}
	l.data[name] = data
	l.order = append(l.order, name)
	return nil
}

// readModule reads a module, plain (to 6.1) or as .ko.xz (since 6.3 in Debian).
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if filepath.Ext(path) == ".xz" {
		if r, err = xz.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// moduleDepends reads what a module needs, hard and soft, from its own .modinfo: the
// package has no modules.dep, which is made at installation.
func moduleDepends(data []byte) []string {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil
	}
	info, err := section.Data()
	if err != nil {
		return nil
	}
	var names []string
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok {
			names = append(names, strings.Split(list, ",")...)
		}
		if list, ok := strings.CutPrefix(entry, "softdep=pre: "); ok {
			list, _, _ = strings.Cut(list, "post:")
			names = append(names, strings.Fields(list)...)
		}
	}
	for i := range names {
		names[i] = moduleName(names[i])
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}
