package lab

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// bootstrapSteps are what mmdebstrap says that it begins, and how progress has it.
var bootstrapSteps = map[string]string{
	"I: running apt-get update...":                          "fetching the package index",
	"I: extracting archives...":                             "unpacking the base packages",
	"I: installing essential packages...":                   "configuring the base packages",
	"I: installing remaining packages inside the chroot...": "installing the other packages",
	"I: cleaning package lists and apt cache...":            "removing the package index",
	"I: creating tarball...":                                "packing the file system",
}

// aptLines matches what apt and dpkg say of packages.
var aptLines = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:\d+ upgraded, (\d+) newly installed|(Get):\d+ \S+ \S+ \S+ \S+ \S+ \S+ \[|(Unpacking) |(Setting up) )`)
})

// aptEvery is how many packages there are from one line of progress to the next.
const aptEvery = 25

// bootstrapProgress is written mmdebstrap's verbose output, and reports its steps.
type bootstrapProgress struct {
	to    io.Writer
	rest  []byte // of a line that has not ended
	total int    // packages of apt's last plan
	done  map[string]int
}

// Write never fails: a reader of progress that is gone must not end what is made.
func (p *bootstrapProgress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ended := bytes.Cut(p.rest, []byte("\n"))
		if !ended {
			return len(b), nil
		}
		p.line(strings.TrimSpace(string(line)))
		p.rest = rest
	}
}

func (p *bootstrapProgress) line(s string) {
	if step := bootstrapSteps[s]; step != "" {
		fmt.Fprintln(p.to, step)
		return
	}
	m := aptLines().FindStringSubmatch(s)
	switch {
	case m == nil:
	case m[1] != "":
		var err error
		if p.total, err = strconv.Atoi(m[1]); err != nil {
			p.total = 0
		}
		p.done = map[string]int{}
	case m[2] != "":
		p.count("downloading")
	case m[3] != "":
		p.count("unpacking")
	case m[4] != "":
		p.count("configuring")
	}
}

// count reports the first package of a step, the last one, and some between.
func (p *bootstrapProgress) count(step string) {
	if p.total == 0 {
		return // dpkg without apt, for the base
	}
	p.done[step]++
	if n := p.done[step]; n == 1 || n == p.total || n%aptEvery == 0 && n < p.total {
		fmt.Fprintf(p.to, "%s package %d of %d\n", step, n, p.total)
	}
}
