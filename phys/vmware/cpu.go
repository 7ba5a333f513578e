package vmware

import "github.com/outsight-vmi/outsight/phys/note"

// Indices of a processor's segments.
const (
	segES = iota
	segCS
	segSS
	segDS
	segFS
	segGS
	segLDTR
	segTR
)

// generalOrder are the registers of a block "gpregs" as indices of [note.CPU.General], and
// generalNames are the names of tags of their own.
var (
	generalOrder = [16]int{0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15}
	generalNames = [16]string{"rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}
	// selectors are segments as indices of [note.CPU.Selectors].
	selectors = [...]int{segES: 2, segCS: 0, segSS: 5, segDS: 1, segFS: 3, segGS: 4}
)

const generalRSP = 6

// cpu is processor n.
func (r *reader) cpu(n uint32) (*note.CPU, error) {
	if n >= maxCPUs {
		return nil, errCPU
	}
	for uint32(len(r.cpus)) <= n {
		r.cpus, r.known = append(r.cpus, note.CPU{}), append(r.known, false)
	}
	return &r.cpus[n], nil
}

// cpuTag learns from a tag of group "cpu". Registers are one tag each or, in later
// versions, a block for all of a kind.
func (r *reader) cpuTag(t *tag) error {
	if t.index[0] == noIndex {
		return nil // not of one processor
	}
	c, err := r.cpu(t.index[0])
	if err != nil {
		return err
	}
	word := func(i int) uint64 { return (&tag{value: t.value[8*i : 8*i+8]}).number() }
	second := t.index[1]
	switch t.name {
	case "gpregs":
		if len(t.value) == gpregsSize {
			for i, to := range generalOrder {
				c.General[to] = word(i)
			}
			c.RSP = c.General[generalRSP]
		}
	case "CR64":
		if t.block && len(t.value) == crSize {
			for i := range uint32(5) {
				r.control(t.index[0], i, word(int(i)))
			}
		} else if !t.block {
			r.control(t.index[0], second, t.number())
		}
	case "IDTR": // its limit, then its base; or the base in two halves
		switch {
		case t.block && len(t.value) == idtrSize:
			c.IDT = (&tag{value: t.value[2:]}).number()
		case !t.block && second == 1:
			c.IDT = c.IDT&^0xffff_ffff | t.number()&0xffff_ffff
		case !t.block && second == 2:
			c.IDT = c.IDT&0xffff_ffff | t.number()<<32
		}
	case "rip":
		c.RIP = t.number()
	case "eflags", "EFLAGS":
		c.RFLAGS |= t.number() & 0xffff_ffff
	case "S":
		if second < uint32(len(selectors)) {
			c.Selectors[selectors[second]] = uint16(t.number())
			c.CPL = int(c.Selectors[0] & 3)
		}
	case "S.base64":
		if to := map[uint32]*uint64{segFS: &c.FSBase, segGS: &c.GSBase, segLDTR: &c.LDT, segTR: &c.TR}[second]; to != nil {
			*to = t.number()
		}
	default:
		for i, name := range generalNames {
			if t.name == name {
				c.General[generalOrder[i]] = t.number()
				c.RSP = c.General[generalRSP]
			}
		}
	}
	return nil
}

// control sets a control register.
func (r *reader) control(cpu, n uint32, v uint64) {
	c := &r.cpus[cpu]
	switch n {
	case 0:
		c.CR0 = v
	case 2:
		c.CR2 = v
	case 3:
		c.CR3, r.known[cpu] = v, true
	case 4:
		c.CR4 = v
	}
}
