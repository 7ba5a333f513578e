package tcg

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// probeWords are what each record of a probe begins with: task, IDs, place and start of the task. Behind them come, of
// a store, its address, size and value, and the numbers that the probe fetches.
const probeWords = 4

// parseWrite reads "ADDRESS|SYMBOL[:BYTES]".
func parseWrite(l *guest.Look, text string) (*userProbe, error) {
	place, length, given := strings.Cut(text, ":")
	n := uint64(8)
	if given {
		var err error
		if n, err = strconv.ParseUint(length, 0, 64); err != nil || n == 0 || n > 1<<20 {
			return nil, fmt.Errorf("watch %q: %q is not a number of bytes up to 1 MiB", text, length)
		}
	}
	a, err := peek.Kernel(l.Linux).Resolve(place)
	if err != nil {
		return nil, fmt.Errorf("watch %w", err)
	}
	return &userProbe{text: text, name: place, write: [2]uint64{a, n}}, nil
}

// use sets the probes whose records come from now on.
func (j *joiner) use(l *guest.Look, probes []*userProbe, kinds []trace.Kind) {
	j.probes, j.kinds, j.names = probes, kinds, nil
	if len(probes) > 0 || kinds != nil {
		j.names, _ = peek.Kernel(l.Linux).Placer() // without it places are numbers
	}
}

// place names an address of the kernel's, or is its number.
func (j *joiner) place(a uint64) string {
	if j.names != nil && int64(a) < 0 {
		if n := j.names.Name(a); n != "" {
			return n
		}
	}
	return fmt.Sprintf("%#x", a)
}

// probed takes in a record of a probe of the user's.
func (j *joiner) probed(ctx context.Context, s origin, r *plugin.Record) {
	n := int(r.Probe) - idProbe
	if n < 0 || n >= len(j.probes) {
		return
	}
	c := j.record(ctx, s, r)
	c.probe = j.probes[n]
	c.add(r, false)
	j.queue = append(j.queue, c)
}

// record begins what is made of a record whose words begin as those of a probe do.
func (j *joiner) record(ctx context.Context, s origin, r *plugin.Record) *call {
	c := j.new()
	c.task, c.ids, c.born = r.Word(0), r.Word(1), r.Word(3)
	c.vcpu, c.entered = r.VCPU, s.Time(r)
	for i := range r.Words() {
		c.words = append(c.words, r.Word(i))
	}
	if c.task != 0 {
		c.process = j.who(ctx, c.task, c.born, c.ids)
	}
	return c
}

// fillProbe fills the event of a probe of the user's.
func (j *joiner) fillProbe(e *trace.Event, c *call) {
	u, words := c.probe, c.words
	e.Kind, e.Name = trace.KindProbe, u.name
	if c.task == 0 {
		e.Process = nil
	}
	for len(words) < probeWords+3+len(u.args) {
		words = append(words, 0) // a record that was full
	}
	j.text = j.text[:0]
	add := func(name string) {
		if len(j.text) > 0 {
			j.text = append(j.text, ' ')
		}
		j.text = append(append(j.text, name...), '=')
	}
	next := probeWords
	if u.write[1] > 0 {
		e.Kind, e.Object = trace.KindWrite, j.place(words[next])
		add("value")
		j.text = strconv.AppendUint(append(j.text, "0x"...), words[next+2], 16)
		add("size")
		j.text = strconv.AppendUint(j.text, words[next+1], 10)
		add("by")
		j.text = append(j.text, j.place(words[2])...)
		next += 3
	}
	for i := range u.args {
		a := &u.args[i]
		if !a.text {
			add(a.label)
			j.text = a.append(j.text, words[next])
			next++
		}
	}
	for i := range u.args {
		if u.args[i].text {
			add(u.args[i].label)
			j.text = c.appendString(j.text, uint8(i))
		}
	}
	e.Args = view(j.text)
	if j.o.Fields {
		e.Fields = strings.Fields(e.Args)
	}
}

// appendString writes the string of a probe's argument.
func (c *call) appendString(b []byte, tag uint8) []byte {
	for _, p := range c.data {
		if p.tag != tag {
			continue
		}
		b = strconv.AppendQuote(b, string(c.bytes[p.from:p.to]))
		switch p.status {
		case syscall.Cut:
			return append(b, "..."...)
		case syscall.Unreadable:
			return append(b, "?"...)
		}
		return b
	}
	return append(b, '?')
}
