package text_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/table/text"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"bash":                            "bash",
		"a b":                             "a b",
		"\x1b[2Jx":                        `\x1b[2Jx`,
		"\n\t\x00\x7f":                    `\x0a\x09\x00\x7f`,
		"\x9b31m":                         `\x9b31m`,   // C1 as a byte: not UTF-8
		"\u009b31m":                       `\u009b31m`, // C1 as UTF-8
		"a\u202egnp.exe":                  `a\u202egnp.exe`,
		"\u2066x\u2069":                   `\u2066x\u2069`,
		"zero\u200bwidth\ufeff":           `zero\u200bwidth\ufeff`,
		"tag\U000e0041":                   `tag\U000e0041`,
		"caf\xc3":                         `caf\xc3`,
		"\xed\xa0\x80":                    `\xed\xa0\x80`, // a surrogate
		"Größe 日本 🐧":                      "Größe 日本 🐧",
		"e\u0301":                         "e\u0301",
		"\u0301e":                         `\u0301e`, // would combine with the column before
		"e\u0301\u0301\u0301\u0301\u0301": "e\u0301\u0301\u0301\u0301" + `\u0301`,
		`C:\dir`:                          `C:\dir`,
		`serial\x2dgetty`:                 `serial\x5cx2dgetty`, // not to be read as an escape
		`\x2D \u12 \U0001f427`:            `\x2D \u12 \x5cU0001f427`,
		"nbsp\u00a0, \u3164blank":         `nbsp\u00a0, \u3164blank`,
		"\ufffd":                          "\ufffd",
	} {
		if got := text.Visible(in); got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
		if back := text.FromVisible(want); back != in {
			t.Errorf("FromVisible(%q) = %q, want %q", want, back, in)
		}
	}
}

func TestLossless(t *testing.T) {
	for in, want := range map[string]string{
		"bash":            "bash",
		`serial\x2dgetty`: `serial\x2dgetty`,
		"\x1b[2J\u202e":   "\x1b[2J\u202e",
		"caf\xc3":         "caf\ufffdc3",
		"\ufffdc3":        "\ufffdef\ufffdbf\ufffdbdc3",
	} {
		if got := text.Lossless(in); got != want {
			t.Errorf("Lossless(%q) = %q, want %q", in, got, want)
		}
	}
	if got := text.FromLossless("x\ufffd!"); got != "x\ufffd!" {
		t.Errorf("a replacement character without digits: %q", got)
	}
}

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "日本": 4, "e\u0301": 1, "🐧": 2, "…": 1, "├─": 2} {
		if got := text.Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdef", 5, "abcd…"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"abc", 1, "…"},
		{"abc", 0, ""},
	} {
		if got := text.Cut(c.s, c.width); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.s, c.width, got, c.want)
		}
	}
}

// check holds the promises of this package for one text.
func check(t interface{ Fatalf(string, ...any) }, s string) {
	visible := text.Visible(s)
	if back := text.FromVisible(visible); back != s {
		t.Fatalf("Visible loses: %q became %q, and %q again", s, visible, back)
	}
	mustPrint(t, visible)

	written := string(text.AppendJSON(nil, s))
	mustPrint(t, written)
	var parsed string
	if err := json.Unmarshal([]byte(written), &parsed); err != nil {
		t.Fatalf("AppendJSON(%q) = %s: %v", s, written, err)
	}
	if parsed != text.Lossless(s) {
		t.Fatalf("AppendJSON(%q) = %s, which reads as %q", s, written, parsed)
	}
	if back := text.FromLossless(parsed); back != s {
		t.Fatalf("Lossless loses: %q became %q, and %q again", s, parsed, back)
	}
	if utf8.ValidString(s) && !containsReplacement(s) && parsed != s {
		t.Fatalf("JSON changed the honest text %q to %q", s, parsed)
	}
	for _, w := range []int{0, 1, 2, 7} {
		if cut := text.Cut(visible, w); text.Width(cut) > w {
			t.Fatalf("Cut(%q, %d) = %q is %d wide", visible, w, cut, text.Width(cut))
		}
	}
}

func containsReplacement(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError {
			return true
		}
	}
	return false
}

func mustPrint(t interface{ Fatalf(string, ...any) }, s string) {
	if !utf8.ValidString(s) {
		t.Fatalf("%q is not UTF-8", s)
	}
	for _, r := range s {
		if !text.Plain(r) {
			t.Fatalf("%q lets %U out", s, r)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	nasty := rapid.SampledFrom([]string{`\`, "x", "u", "U", "0", "1b", "\x1b", "\xff", "\ufffd", "é", "日", "\u0301", "\u202e", "🐧", `"`})
	anything := rapid.OneOf(
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.String(),
		rapid.Map(rapid.SliceOf(nasty), func(parts []string) string {
			var s string
			for _, p := range parts {
				s += p
			}
			return s
		}),
	)
	rapid.Check(t, func(t *rapid.T) { check(t, anything.Draw(t, "text")) })
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"bash", "\x1b[2J", `\x1b`, `\\u0041`, "caf\xc3", "\ufffdc3", "e\u0301", "\U000e0041"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		check(t, s)
		text.FromVisible(s) // what was not written by Visible must not hurt either
		text.FromLossless(s)
	})
}

func ExampleVisible() {
	fmt.Println(text.Visible("sshd\x1b[2J"))
	// Output: sshd\x1b[2J
}

func ExampleLossless() {
	stored := text.Lossless("caf\xc3")
	fmt.Printf("%+q %+q\n", stored, text.FromLossless(stored))
	// Output: "caf\ufffdc3" "caf\xc3"
}

func BenchmarkVisible(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		text.Visible("/usr/lib/systemd/systemd-journald")
	}
}
