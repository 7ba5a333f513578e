package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func init() { views["modules"] = tellModules }

// tellModules reads /proc/modules and /sys/module.
func tellModules(emit func(any) error) error {
	list, err := os.ReadFile("/proc/modules")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return fmt.Errorf("/proc/modules: %q", line)
		}
		row := map[string]any{"name": f[0], "state": f[4], "text": f[5], "taint": nil, "used_by": nil}
		row["size"], _ = strconv.ParseUint(f[1], 10, 64)
		row["refcount"], _ = strconv.ParseInt(f[2], 10, 64)
		if users := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' }); f[3] != "-" && !strings.Contains(f[3], "[") {
			row["used_by"] = users
		}
		if len(f) > 6 {
			row["taint"] = strings.Trim(f[6], "()")
		}
		dir := "/sys/module/" + f[0]
		row["parameters"] = filesOf(dir+"/parameters", "=")
		row["sections"] = filesOf(dir+"/sections", "=")
		for _, name := range []string{"version", "srcversion"} {
			row[name] = nil
			if b, err := os.ReadFile(dir + "/" + name); err == nil {
				row[name] = strings.TrimSuffix(string(b), "\n")
			}
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}

// filesOf are the files of a folder with their contents, sorted; nil if there are none.
func filesOf(dir, sep string) any {
	paths, _ := filepath.Glob(dir + "/*") // the pattern is well formed
	hidden, _ := filepath.Glob(dir + "/.*")
	var all []string
	for _, path := range append(paths, hidden...) {
		if filepath.Base(path) == "check_copy_up" {
			all = append(all, "check_copy_up") // of overlay: a function of its own makes up the value
			continue
		}
		if b, err := os.ReadFile(path); err == nil {
			all = append(all, filepath.Base(path)+sep+strings.TrimSuffix(string(b), "\n"))
		}
	}
	slices.Sort(all)
	if all == nil {
		return nil
	}
	return slices.Compact(all)
}
