package guests

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SeriesRoom is how many series there can be: they are numbered from 0.
const SeriesRoom = 100

// Series follows the calls of one process that makes numbered calls (see groundtruth/guests/calls): what each must be is known in advance, and so is how
// many records were missed.
type Series struct {
	Late bool      // something was lost before its first entry was seen
	At   time.Time // of the last entry

	begun       bool
	first, last int    // numbers of calls whose entry was seen
	seen        uint64 // records from the first entry on
	before      uint64 // … without those from the last entry on
}

// Call is what a source of events says of a call.
type Call struct {
	Args, Result, Note string
	Returned           bool
	Lost               uint64 // before it, at least
	At                 time.Time
}

// Call takes in the next call, and says what is wrong with it.
func (c *Series) Call(e Call) string {
	if e.Returned {
		defer func() { c.seen++ }()
	}
	if e.Args == "" { // its entry was not seen
		if !e.Returned || e.Note == "" {
			return "neither entry nor return"
		}
		n, err := strconv.Atoi(e.Result)
		if err != nil || c.begun && n < c.last {
			return "wrong result"
		}
		if !c.begun {
			c.seen--
		}
		return ""
	}
	fields := strings.Split(e.Args, ", ")
	series, err1 := strconv.Atoi(fields[0])
	n, err2 := strconv.Atoi(fields[min(1, len(fields)-1)])
	switch {
	case len(fields) != 3 || err1 != nil || err2 != nil || series < 1000 || series >= 1000+SeriesRoom || fields[2] != "SEEK_SET":
		return "wrong arguments"
	case c.begun && n <= c.last:
		return fmt.Sprintf("call %d came after %d", n, c.last)
	case e.Returned && e.Result != fields[1]:
		return "the result of another call"
	case !e.Returned && e.Note == "":
		return "no return and no note"
	}
	if !c.begun {
		c.begun, c.Late, c.first, c.seen = true, e.Lost > 0, n, 0
	}
	c.last, c.before, c.At = n, c.seen, e.At
	c.seen++
	return ""
}

// Missing is how many records were not seen from the first entry to the last one.
func (c *Series) Missing() uint64 { return 2*uint64(c.last-c.first) - c.before }
