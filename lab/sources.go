package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A source is one archive that the machine's apt knows.
type source struct {
	uris       []string
	suites     []string
	components []string
	signedBy   string // a path, a fingerprint, or an embedded key (then with line breaks); may be ""
	trusted    bool
}

// mirror is where Debian comes from, as the machine's own apt sources say.
type mirror struct {
	main     source  // the archive with every release
	security *source // nil: not known, do without
}

// debianSuite matches the names of Debian's releases and what may be hung on to them.
var debianSuite = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(buster|bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|stable|oldstable|oldoldstable)` +
		`(-updates|-backports|-proposed-updates|-security|/updates)?$`)
})

// machineMirror reads the mirror from this machine's apt sources, or from
// $OUTSIGHT_LAB_MIRROR (a URI).
func machineMirror() (mirror, error) {
	if uri := os.Getenv("OUTSIGHT_LAB_MIRROR"); uri != "" {
		return mirror{main: source{uris: []string{uri}}}, nil
	}
	var all []source
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, name := range append([]string{"/etc/apt/sources.list"}, files...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // absent, or not for us to read
		}
		switch filepath.Ext(name) {
		case ".list":
			all = append(all, parseOneLine(text)...)
		case ".sources":
			all = append(all, parseDeb822(text)...)
		}
	}
	return chooseMirror(all)
}

// chooseMirror picks Debian's own archive out of what may be a dozen.
func chooseMirror(all []source) (mirror, error) {
	var m mirror
	best := -1
	for i := range all {
		s := &all[i]
		if len(s.uris) == 0 || !slices.Contains(s.components, "main") || !slices.ContainsFunc(s.suites, debianSuite().MatchString) {
			continue
		}
		security := func(suite string) bool {
			return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
		}
		if slices.ContainsFunc(s.suites, security) && !strings.HasSuffix(strings.TrimRight(s.uris[0], "/"), "/debian") {
			if m.security == nil {
				m.security = s
			}
			continue
		}
		// Other vendors name their suites after Debian's releases too.
		score := 0
		if path.Base(strings.TrimRight(s.uris[0], "/")) == "debian" {
			score += 2
		}
		if strings.Contains(s.signedBy, "debian-archive") || s.signedBy == "" {
			score++
		}
		if score > best {
			best, m.main = score, *s
		}
	}
	if best < 0 {
		return mirror{}, errors.New("lab: no Debian archive among this machine's apt sources: set OUTSIGHT_LAB_MIRROR to the URI of a mirror")
	}
	return m, nil
}

// parseOneLine reads the sources.list format: "deb [options] uri suite component…".
func parseOneLine(text []byte) []source {
	var all []source
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' && rest[0] != '[' {
			continue // deb-src among them
		}
		var s source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, option := range strings.Fields(options) {
				key, value, _ := strings.Cut(option, "=")
				switch strings.ToLower(key) {
				case "signed-by":
					s.signedBy = value
				case "trusted":
					s.trusted = value == "yes"
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.uris, s.suites, s.components = fields[:1], fields[1:2], fields[2:]
		all = append(all, s)
	}
	return all
}

// parseDeb822 reads the .sources format.
func parseDeb822(text []byte) []source {
	var all []source
	for stanza := range stanzas(bytes.NewReader(text)) {
		if strings.EqualFold(stanza["enabled"], "no") || !slices.Contains(strings.Fields(stanza["types"]), "deb") {
			continue
		}
		s := source{
			uris:       strings.Fields(stanza["uris"]),
			suites:     strings.Fields(stanza["suites"]),
			components: strings.Fields(stanza["components"]),
			signedBy:   stanza["signed-by"],
			trusted:    strings.EqualFold(stanza["trusted"], "yes"),
		}
		if len(s.uris) > 0 && len(s.suites) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// deb822 writes a source in the .sources format, for the suites given and whatever
// architecture apt is configured for.
func (s source) deb822(suites ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n",
		strings.Join(s.uris, " "), strings.Join(suites, " "))
	if s.signedBy != "" {
		// A key that is written out keeps its lines: each begins with a space.
		fmt.Fprintf(&b, "Signed-By: %s\n", strings.ReplaceAll(s.signedBy, "\n", "\n "))
	}
	if s.trusted {
		b.WriteString("Trusted: yes\n")
	}
	return b.String()
}

// allOf writes the sources of a release, with its security updates where it has any.
func (m mirror) allOf(release string) string {
	all := m.main.deb822(release)
	if m.security != nil && !strings.Contains(release, "-") && !slices.Contains([]string{"sid", "unstable", "experimental"}, release) {
		all += "\n" + m.security.deb822(release+"-security")
	}
	return all
}
