package tcg

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseFilePlace(t *testing.T) {
	for text, want := range map[string]string{
		"/bin/a:main":                 "{/bin/a main 0 false}",
		"/bin/a:b:main+0x10":          "{/bin/a:b main 16 false}",
		"/bin/a:main%return":          "{/bin/a main 0 true}",
		"/bin/a:0x1000":               "{/bin/a  4096 false}",
		"/bin/a:4096":                 "{/bin/a  4096 false}",
		"/bin/a:":                     "error",
		"/bin/a":                      "error",
		"/bin/a:main+":                "error",
		"/bin/a:main+x":               "error",
		"/bin/a:%return":              "error",
		"/bin/a:main+1%return":        "error",
		"/bin/a:99999999999999999999": "error",
	} {
		got := "error"
		if p, err := parseFilePlace(text); err == nil {
			got = fmt.Sprint(p)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestParseMachineArguments(t *testing.T) {
	for text, want := range map[string]probeArg{
		"%di":                  {label: "%di", register: "rdi", size: 8, hex: true},
		"n=%si:s32":            {label: "n", register: "rsi", size: 4, signed: true},
		"%rdi:string":          {label: "%rdi:string", register: "rdi", size: 8, hex: true, memory: true, text: true},
		"s=+0(%di):string":     {label: "s", register: "rdi", size: 8, hex: true, memory: true, text: true},
		"v=-8(%sp):u16":        {label: "v", register: "rsp", size: 2, memory: true, offset: ^uint64(7)},
		"v=+8(+0x10(%r8))":     {label: "v", register: "r8", size: 8, hex: true, memory: true, steps: []uint64{16}, offset: 8},
		"v=$stack2":            {label: "v", register: "rsp", size: 8, hex: true, memory: true, offset: 16},
		"v=+1($stack2):string": {label: "v", register: "rsp", size: 8, hex: true, memory: true, text: true, steps: []uint64{16}, offset: 1},
		"$retval":              {label: "$retval", register: "rax", size: 8, signed: true},
	} {
		e := expression{back: true}
		got, err := e.parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "name", "%", "%di.name", "%di->name", "+0(%di", "+(%di)", "+0%di", "+0()", "+x(%di)", "%di:x7", "%di:", "%DI", "$stackx", "%di:string:s32",
		strings.Repeat("+0(", 40) + "%di" + strings.Repeat(")", 40),
	} {
		e := expression{}
		if got, err := e.parse(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
	if _, err := (&expression{}).parse("$retval"); err == nil {
		t.Error("there is a result where a function begins")
	}
}

// FuzzProbe checks that what is taken for a probe can be compiled.
func FuzzProbe(f *testing.F) {
	f.Add("/bin/a:main+0x10", "n=+8(+0(%di)):string")
	f.Add("/bin/a:main%return", "$retval:s32")
	f.Fuzz(func(t *testing.T, place, arg string) {
		if p, err := parseFilePlace(place); err == nil && (p.path == "" || p.symbol == "" && p.back) {
			t.Errorf("%q: %+v", place, p)
		}
		e := expression{back: true}
		a, err := e.parse(arg)
		if err != nil {
			return
		}
		if a.register == "" || len(a.register) > 15 || !a.text && a.size != 1 && a.size != 2 && a.size != 4 && a.size != 8 || len(a.steps) > maxDereferences {
			t.Errorf("%q: %+v", arg, a)
		}
	})
}
