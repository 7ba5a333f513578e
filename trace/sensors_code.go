package trace

import (
	"path"
	"slices"
	"strings"
)

// What memory without a file is that can be executed: the Name of an event of kind [KindNewCode].
const (
	CodeAnonymous = "anonymous"
	CodeHeap      = "heap"
	CodeStack     = "stack"
	CodeNameless  = "nameless" // a file without a name: memfd, System V shared memory, one that was deleted
	CodeWritten   = "written"  // a private mapping of a file that the process has changed
)

// compilers are programs that make code at run time, by their names without version.
var compilers = []string{
	"node", "nodejs", "deno", "bun", "java", "dotnet", "mono", "luajit", "nvim", "ruby", "php", "php-fpm", "python", "pypy", "julia", "sbcl", "racket", "guile", "beam.smp",
	"chrome", "chromium", "firefox", "firefox-esr", "thunderbird", "electron", "WebKitWebProcess", "gjs", "gnome-shell", "cinnamon", "polkitd", "qmlscene", "plasmashell",
	"postgres", "clickhouse", "envoy", "grep", "git", "nginx", "apache2", "httpd", "haproxy", // by LLVM, LuaJIT, V8 and PCRE2
}

// code says what an event of executable memory without a file means. What compilers at run time do, and nobody else can have put where
// packages put programs, is a fact without a note.
func (s *Sensors) code(e *Event) string {
	exe := ""
	if e.Process != nil {
		exe = e.Process.Exe
	}
	switch e.Name {
	case CodeHeap, CodeStack:
		return "can run its " + e.Name + ", as exploits do and compilers do not"
	case CodeWritten:
		return "can run code that it has changed in memory"
	case CodeNameless:
		if name, memfd := strings.CutPrefix(strings.TrimSuffix(e.Object, Deleted), "/memfd:"); memfd {
			if compiles(exe) {
				return ""
			}
			return "can run memory that no file holds (memfd " + name + ")"
		}
		return "can run a file that has no name"
	}
	if compiles(exe) {
		return ""
	}
	return "can run code that no file holds"
}

// compiles reports whether an installed program is known to make code at run time.
func compiles(exe string) bool {
	if !installed(exe) {
		return false
	}
	name := path.Base(exe)
	return strings.HasPrefix(name, "qemu-") || slices.Contains(compilers, name) || slices.Contains(compilers, strings.TrimRight(name, "0123456789."))
}
