package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func init() { views["sysctl"] = tellSettings }

// tellSettings reads /proc/sys. What cannot be read, or changes whenever it is, has no
// value.
func tellSettings(emit func(any) error) error {
	const root = "/proc/sys"
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			// binfmt_misc is a file system of its own.
			if d != nil && d.IsDir() && path == root+"/fs/binfmt_misc" {
				return fs.SkipDir
			}
			return nil
		}
		name := strings.ReplaceAll(strings.TrimPrefix(path, root+"/"), ".", "\x00")
		name = strings.ReplaceAll(strings.ReplaceAll(name, "/", "."), "\x00", "/")
		row := map[string]any{"name": name}
		if b, err := os.ReadFile(path); err == nil {
			row["value"] = strings.TrimSuffix(string(b), "\n")
		}
		return emit(row)
	})
}
