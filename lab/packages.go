package lab

import (
	"bufio"
	"io"
	"iter"
	"strings"
)

// stanzas reads Debian's control format: blank lines between stanzas of "Key: value"
// lines; a line that begins with a space continues the value. Keys come in lower case.
// The continued lines of a value are kept apart by line breaks, without their first space.
func stanzas(r io.Reader) iter.Seq[map[string]string] {
	return func(yield func(map[string]string) bool) {
		stanza, key := map[string]string{}, ""
		scan := bufio.NewScanner(r)
		scan.Buffer(nil, 4<<20) // some Provides lines are very long
		for scan.Scan() {
			line := strings.TrimRight(scan.Text(), " \t\r")
			switch {
			case line == "":
				if len(stanza) > 0 {
					if !yield(stanza) {
						return
					}
					stanza, key = map[string]string{}, ""
				}
			case line[0] == '#':
			case line[0] == ' ' || line[0] == '\t':
				if key != "" {
					stanza[key] += "\n" + line[1:]
				}
			default:
				k, value, ok := strings.Cut(line, ":")
				if !ok {
					key = ""
					continue
				}
				key = strings.ToLower(strings.TrimSpace(k))
				stanza[key] = strings.TrimSpace(value)
			}
		}
		if len(stanza) > 0 {
			yield(stanza)
		}
	}
}

// firstDepends gives the names that a Depends field asks for, the first of each choice.
func firstDepends(field string) []string {
	var names []string
	for _, clause := range strings.Split(field, ",") {
		first, _, _ := strings.Cut(clause, "|")
		name, _, _ := strings.Cut(strings.TrimSpace(first), " ")
		name, _, _ = strings.Cut(name, ":")
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// compareVersions orders Debian versions (deb-version(7)): -1, 0 or 1.
func compareVersions(a, b string) int {
	epochA, upstreamA, revisionA := splitVersion(a)
	epochB, upstreamB, revisionB := splitVersion(b)
	for _, pair := range [][2]string{{epochA, epochB}, {upstreamA, upstreamB}, {revisionA, revisionB}} {
		if c := compareVersionPart(pair[0], pair[1]); c != 0 {
			return c
		}
	}
	return 0
}

func splitVersion(v string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// compareVersionPart compares text and numbers in turn, as dpkg does.
func compareVersionPart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !digit(a[0])) || (b != "" && !digit(b[0])) {
			if wa, wb := versionWeight(a), versionWeight(b); wa != wb {
				return sign(wa - wb)
			}
			a, b = a[1:], b[1:]
		}
		na, nb := leadingNumber(a), leadingNumber(b)
		a, b = a[len(na):], b[len(nb):]
		na, nb = strings.TrimLeft(na, "0"), strings.TrimLeft(nb, "0")
		if c := len(na) - len(nb); c != 0 {
			return sign(c)
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c
		}
	}
	return 0
}

// versionWeight orders the first byte: a tilde before the end, the end and digits before
// letters, letters before everything else.
func versionWeight(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func leadingNumber(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

func sign(n int) int { return max(-1, min(1, n)) }
