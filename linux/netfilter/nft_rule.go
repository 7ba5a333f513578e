package netfilter

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Rule is a rule of nf_tables.
type Rule struct {
	Chain    *Chain
	Addr     virt.Addr // of the struct nft_rule; of the nft_rule_dp where it only runs
	Handle   uint64
	Position int // its place in the chain; 0 is the first
	// Text is the rule in nft's syntax, as "nft -s" lists it. What is not understood
	// stands in square brackets, with its name and its bytes.
	Text    string
	Comment string
	Unknown []string // names of the expressions that are not understood
	Packets uint64   // of its last counter
	Bytes   uint64
	Counted bool // whether it has a counter
	// Listed says that nft lists it, Running that the kernel runs it as it is listed.
	// What the kernel runs is a copy (since 5.17), so the two can differ.
	Listed, Running bool
	RunningText     string // what runs, where that is not what is listed
}

// nftRuleAt is where a rule's expressions lie.
type nftRuleAt struct {
	addr, data virt.Addr
	handle     uint64
	size       uint64 // of the expressions, in bytes
	udata      bool
}

// rules finds the rules of a chain: those listed, and those that run.
func (w *nftWalk) rules(ctx context.Context, c *Chain, gen uint) {
	o, r := w.o, &w.r
	for node, err := range w.s.List(ctx, o.cRules.At(c.Addr), maxNFTRules) {
		if err != nil {
			c.err = err
			continue
		}
		active := false
		rule, err := kobj.Read(r, func() nftRuleAt {
			a := node - virt.Addr(o.rList.Offset)
			active = r.Uint(a, o.rGenmask)&(1<<gen) == 0
			return nftRuleAt{addr: a, data: o.rData.At(a), handle: r.Uint(a, o.rHandle), size: r.Uint(a, o.rLen), udata: r.Uint(a, o.rUdata) != 0}
		})
		if err != nil {
			c.err = err
		} else if active {
			c.listed = append(c.listed, rule)
		}
	}
	if !o.blobs[gen].Present() {
		c.running = c.listed // the very same rules
		return
	}
	_, err := kobj.Read(r, func() int {
		blob := r.Pointer(c.Addr, o.blobs[gen])
		if blob == 0 {
			return 0
		}
		size, data := r.Uint(blob, o.blobSize), o.blobData.At(blob)
		const most = 1 << 26
		if size > most {
			r.Err = fmt.Errorf("%w: %d bytes of rules", kobj.ErrBroken, size)
		}
		for off := uint64(0); off < size && r.Err == nil && len(c.running) < maxNFTRules; {
			a := data + virt.Addr(off)
			if r.Uint(a, o.dpLast) != 0 {
				break
			}
			n := r.Uint(a, o.dpLen)
			c.running = append(c.running, nftRuleAt{addr: a, data: o.dpData.At(a), handle: r.Uint(a, o.dpHandle), size: n})
			off += uint64(o.dpData.Offset) + n
		}
		return 0
	})
	if err != nil {
		c.err = fmt.Errorf("what runs: %w", err)
	}
}

// Rules yields the rules of all chains of nf_tables, those that only run last in each.
func Rules(ctx context.Context, s *linux.System) iter.Seq2[*Rule, error] {
	return func(yield func(*Rule, error) bool) {
		w := newNFTWalk(s)
		w.chains(ctx, func(c *Chain, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if c.err != nil && !yield(nil, fmt.Errorf("nf_tables: chain %s %s %s: %w", c.Table.Family, c.Table.Name, c.Name, c.err)) {
				return false
			}
			return w.rulesOf(ctx, c, yield)
		})
	}
}

func (w *nftWalk) rulesOf(ctx context.Context, c *Chain, yield func(*Rule, error) bool) bool {
	runs := map[uint64]int{} // by handle, its place
	for i, a := range c.running {
		runs[a.handle] = i
	}
	last := -1
	for i, a := range c.listed {
		if ctx.Err() != nil {
			return yield(nil, ctx.Err())
		}
		rule, err := w.rule(c, a)
		if err != nil {
			if !yield(nil, err) {
				return false
			}
			continue
		}
		rule.Position, rule.Listed = i, true
		if at, ok := runs[a.handle]; ok {
			delete(runs, a.handle)
			other := rule
			if c.running[at].data != a.data {
				if other, err = w.rule(c, c.running[at]); err != nil {
					if !yield(nil, err) {
						return false
					}
					continue
				}
			}
			if rule.Running = at > last && other.Text == rule.Text; !rule.Running {
				rule.RunningText = other.Text
			}
			last = max(last, at)
		}
		if !yield(rule, nil) {
			return false
		}
	}
	for i, a := range c.running {
		if at, left := runs[a.handle]; !left || at != i {
			continue
		}
		rule, err := w.rule(c, a)
		if err == nil {
			rule.Position, rule.RunningText = i, rule.Text
		}
		if !yield(rule, err) {
			return false
		}
	}
	return true
}

func (w *nftWalk) rule(c *Chain, a nftRuleAt) (*Rule, error) {
	rule, err := kobj.Read(&w.r, func() *Rule {
		d := w.dec.begin(c)
		d.expressions(a.data, a.size)
		n := &Rule{
			Chain: c, Addr: a.addr, Handle: a.handle, Text: d.text(), Unknown: d.unknown,
			Packets: d.packets, Bytes: d.bytes, Counted: d.counted,
		}
		if a.udata {
			n.Comment = w.comment(a.data + virt.Addr(a.size))
		}
		return n
	})
	if err != nil {
		return nil, fmt.Errorf("nf_tables: rule %d of chain %s %s %s: %w", a.handle, c.Table.Family, c.Table.Name, c.Name, err)
	}
	return rule, nil
}

// comment takes the comment out of what user space keeps with a rule: elements of type,
// length and value, of which type 0 is the comment.
func (w *nftWalk) comment(a virt.Addr) string {
	n := w.r.Uint(a, w.o.uLen) + 1
	return nftComment(w.r.Bytes(w.o.uData.At(a), int(n)))
}

func nftComment(b []byte) string {
	for len(b) >= 2 {
		size := int(b[1])
		if 2+size > len(b) {
			return ""
		}
		if b[0] == 0 {
			return strings.TrimRight(string(b[2:2+size]), "\x00")
		}
		b = b[2+size:]
	}
	return ""
}
