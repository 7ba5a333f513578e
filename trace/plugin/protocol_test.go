package plugin

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// header of the plugin: #defines and enumerations, as the C compiler numbers them.
func constants(t *testing.T) map[string]uint64 {
	b, err := os.ReadFile("../../plugin/qemu/protocol.h")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(b), "")
	found := map[string]uint64{}
	for _, m := range regexp.MustCompile(`(?m)^#define (OS_\w+) (.*)$`).FindAllStringSubmatch(text, -1) {
		value, shift, _ := strings.Cut(strings.Trim(strings.ReplaceAll(m[2], "u", ""), "()"), " << ")
		n, err := strconv.ParseUint(value, 0, 64)
		if err != nil {
			t.Fatalf("%s: %v", m[0], err)
		}
		if shift != "" {
			s, _ := strconv.Atoi(shift)
			n <<= s
		}
		found[m[1]] = n
	}
	for _, m := range regexp.MustCompile(`(?s)enum \w+ \{(.*?)\}`).FindAllStringSubmatch(text, -1) {
		next := uint64(0)
		for _, line := range strings.Split(m[1], ",") {
			name, value, set := strings.Cut(strings.TrimSpace(line), " = ")
			if name == "" {
				continue
			}
			if set {
				next, _ = strconv.ParseUint(value, 0, 64)
			}
			found[name] = next
			next++
		}
	}
	return found
}

func TestProtocol(t *testing.T) {
	c := constants(t)
	for name, want := range map[string]uint64{
		"OS_PROTOCOL": protocol, "OS_MAGIC": magic, "OS_PAGE": page, "OS_MAX_RECORD": maxRecord, "OS_MAX_PROGRAM": maxProgram,
		"OS_MAX_PROBES": maxProbes, "OS_MAX_CODE": maxCode, "OS_MAX_RANGES": maxRanges, "OS_MAX_REGISTERS": maxRegisters,
		"OS_SLOTS": slots, "OS_SCRATCH": scratch, "OS_HELLO": msgHello, "OS_PROGRAM": msgProgram, "OS_READY": msgReady, "OS_ERROR": msgError,
		"OS_AT_SYSCALL": uint64(AtSyscall), "OS_AT_NEW_PAGE": uint64(AtNewPage), "OS_AT_RETURN": uint64(AtReturn), "OS_AT_SLEEP": uint64(AtSleep), "OS_SYSENTER": Sysenter, "OS_INT80": Int80,
		"OS_OPS": uint64(opAside) + 1, "OS_ASIDE": uint64(opAside), "OS_LAST": uint64(opLast), "OS_GATE": uint64(opGate), "OS_PUTN": uint64(opPutn), "OS_VSETN": uint64(opVsetn), "OS_GATED": Gated, "OS_OPENS": Opens, "OS_SLEEPS": sleeps, "OS_DOZES": dozes, "OS_ASLEEP": holdAsleep, "OS_GO": holdGo, "OS_LOAD": uint64(opLoad), "OS_COPY": uint64(opCopy), "OS_VEC": uint64(opVec), "OS_JMP": uint64(opJmp),
		"OS_JBIT": uint64(opJbit), "OS_TABLE": uint64(opTable), "OS_HOLD": uint64(opHold), "OS_CTX_KIND": CtxKind, "OS_CTX_WORDS": ctxWords,
		"OS_FAULT": Fault, "OS_TRUNCATED": Truncated, "OS_WAITS": Waits, "OS_PAD": padding, "OS_CUT": uint64(Cut), "OS_UNREADABLE": uint64(Unreadable),
	} {
		if got, ok := c[name]; !ok || got != want {
			t.Errorf("%s is %d in the plugin (there: %v), %d here", name, got, ok, want)
		}
	}
	var h header
	var r ring
	for name, at := range map[string][2]uintptr{
		"sequence": {unsafe.Offsetof(h.sequence), 64}, "waiting": {unsafe.Offsetof(h.waiting), 128}, "ticks": {unsafe.Offsetof(h.ticks), 200},
		"lost": {unsafe.Offsetof(r.lost), 8}, "aside": {unsafe.Offsetof(r.aside), 16}, "tail": {unsafe.Offsetof(r.tail), 64}, "hold": {unsafe.Offsetof(r.hold), 128}, "held": {unsafe.Offsetof(r.held), 136}, "waited": {unsafe.Offsetof(r.waited), 144},
	} {
		if at[0] != at[1] {
			t.Errorf("%s lies at %d, not at %d", name, at[0], at[1])
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.parse(b) != nil {
			return
		}
		n := 0
		for items := r.Items(); ; n++ {
			item, ok := items.Next()
			if !ok {
				break
			}
			if n > len(b) {
				t.Fatal("items without end")
			}
			_ = item.Data
		}
		r.Word(r.Words())
	})
}

func FuzzHello(f *testing.F) {
	f.Add(make([]byte, helloSize+10))
	f.Fuzz(func(_ *testing.T, b []byte) { parseHello(b) })
}

// FuzzRing reads rings that say anything.
func FuzzRing(f *testing.F) {
	f.Add([]byte{32, 0, 0, 0}, uint64(32))
	f.Fuzz(func(t *testing.T, data []byte, head uint64) {
		r, err := newRings(1, 2*maxRecord)
		if err != nil {
			t.Skip(err)
		}
		defer r.close()
		copy(r.data[0], data)
		r.ring[0].head = head
		var rec Record
		for range 100 {
			if ok, err := r.take(&rec); !ok || err != nil {
				return
			}
		}
	})
}
