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

// compilers are programs that make code at run time, by their names without version. Python is none: what runs there from memory without
// a file came by ctypes.
var compilers = []string{
	"node", "nodejs", "deno", "bun", "java", "dotnet", "pwsh", "mono", "luajit", "nvim", "ruby", "php", "php-fpm", "pypy", "julia", "sbcl", "racket", "guile", "beam.smp",
	"chrome", "chromium", "msedge", "brave", "firefox", "firefox-esr", "firefox-bin", "thunderbird", "thunderbird-bin", "electron", "code", "codium", "slack", "WebKitWebProcess",
	"gjs", "gnome-shell", "cinnamon", "polkitd", "qmlscene", "plasmashell", "postgres", "clickhouse", "envoy",
}

// matchers are programs that compile patterns (PCRE2) or small scripts (LuaJIT), into anonymous memory only.
var matchers = []string{"grep", "git", "nginx", "apache2", "httpd", "haproxy"}

// memfds are the names that libraries give the memory in which they make code. Anybody can use them, so they explain an event, and do
// not hide it.
var memfds = map[string]string{"sljit": "PCRE2", "doublemapper": ".NET", "libffi": "libffi"}

// code says what an event of executable memory without a file means. What compilers at run time do, and nobody else can have put where
// packages put programs, is a fact without a note.
func (s *Sensors) code(e *Event) string {
	exe := ""
	if e.Process != nil {
		exe = e.Process.Exe
	}
	switch e.Name {
	case CodeHeap, CodeStack:
		// A program without .note.GNU-stack, or a library that an old one loads, makes them executable, too (READ_IMPLIES_EXEC).
		return "can run its " + e.Name + ", as exploits do, and programs linked with an executable stack"
	case CodeWritten:
		if slices.Contains(wine, path.Base(exe)) && packaged(exe) {
			return "can run code that it has changed in memory, as Wine does to relocate programs"
		}
		return "can run code that it has changed in memory"
	case CodeNameless:
		if name, memfd := memfdOf(e.Object); memfd {
			if compiles(exe) {
				return ""
			}
			note := "can run memory that no file holds (memfd " + name + ")"
			if by := memfds[name]; by != "" {
				note += ", as " + by + " does"
			}
			return note
		}
		return "can run a file that has no name"
	}
	if compiles(exe) || packaged(exe) && slices.Contains(matchers, path.Base(exe)) {
		return ""
	}
	return "can run code that no file holds"
}

// wine are the programs that run those of Windows.
var wine = []string{"wine", "wine64", "wine-preloader", "wine64-preloader"}

// packaged is [installed], and the places of vendors' packages. In /opt a folder can belong to another user than root, so
// that is not enough to trust a program with more than the code that its name promises.
func packaged(exe string) bool {
	return installed(exe) || strings.HasPrefix(exe, "/opt/") || strings.HasPrefix(exe, "/snap/")
}

// compiles reports whether a packaged program is known to make code at run time.
func compiles(exe string) bool {
	if !packaged(exe) {
		return false
	}
	name := path.Base(exe)
	return strings.HasPrefix(name, "qemu-") || slices.Contains(compilers, name) || slices.Contains(compilers, strings.TrimRight(name, "0123456789."))
}
