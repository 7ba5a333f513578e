package gdb

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func decode(d *decoder, b []byte) (got [][]byte, err error) {
	for _, x := range b {
		switch d.feed(x) {
		case framePacket:
			got = append(got, bytes.Clone(d.content))
		case frameBroken:
			return got, d.err
		}
	}
	return got, nil
}

func TestPackets(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"$OK#9a", "OK", nil},
		{"+++$OK#9A", "OK", nil},
		{"garbage$#00", "", nil},
		{"$a}\x03#e1", "a#", nil},
		{"$0* #7a", "0000", nil},
		{"$OK#9b", "", errChecksum},
		{"$OK#zz", "", errChecksum},
		{"$*!#4b", "", errEncoding},
		{"$a}#de", "", errEncoding},
		{"$0*\x1f#79", "", errEncoding},
	} {
		got, err := decode(&decoder{}, []byte(c.in))
		if !errors.Is(err, c.err) {
			t.Errorf("%q: %v, want %v", c.in, err, c.err)
		}
		if c.err == nil && (len(got) != 1 || string(got[0]) != c.want) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	if _, err := decode(&decoder{}, []byte("$"+strings.Repeat("a", 2*maxPacket))); !errors.Is(err, errTooLong) {
		t.Errorf("a long one: %v", err)
	}
	if _, err := decode(&decoder{}, appendRaw(strings.Repeat("a*~", maxPacket/50))); !errors.Is(err, errTooLong) {
		t.Errorf("one that unpacks to much: %v", err)
	}
}

// appendRaw frames content without escapes.
func appendRaw(content string) []byte {
	var sum byte
	for i := range len(content) {
		sum += content[i]
	}
	return append([]byte("$"+content+"#"), hexDigits[sum>>4], hexDigits[sum&15])
}

func TestStops(t *testing.T) {
	for in, want := range map[string]Stop{
		"T05thread:01;":                           {Signal: 5, CPU: 0},
		"T02thread:0a;":                           {Signal: 2, CPU: 9},
		"T05thread:02;watch:ffffffff81234567;":    {Signal: 5, CPU: 1, Access: Write, Addr: 0xffffffff81234567},
		"T05thread:02;rwatch:8;":                  {Signal: 5, CPU: 1, Access: Read, Addr: 8},
		"T05awatch:8;thread:p01.01;unknown;x:y;;": {Signal: 5, CPU: -1, Access: ReadWrite, Addr: 8},
		"S05": {Signal: 5, CPU: -1},
		"W00": {CPU: -1, Ended: true},
	} {
		if got, err := parseStop([]byte(in)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "OK", "T", "T5", "Txx", "E01", "T05watch:xyz;", "T05watch:11111111111111111;"} {
		if got, err := parseStop([]byte(in)); err == nil {
			t.Errorf("%s: %+v", in, got)
		}
	}
}

func TestTargetRefused(t *testing.T) {
	give := func(files map[string]string) func(string) ([]byte, error) {
		return func(name string) ([]byte, error) {
			if f, ok := files[name]; ok {
				return []byte(f), nil
			}
			return nil, ErrRefused
		}
	}
	for name, xml := range map[string]string{
		"itself":     `<target><include href="target.xml"/></target>`,
		"many":       `<target>` + strings.Repeat(`<reg name="a" bitsize="8"/>`, maxRegisters+1) + `</target>`,
		"wide":       `<target><reg name="a" bitsize="100000000"/></target>`,
		"negative":   `<target><reg name="a" bitsize="-8"/></target>`,
		"number":     `<target><reg name="a" bitsize="8" regnum="-5"/></target>`,
		"no x86":     `<target><reg name="x0" bitsize="64"/></target>`,
		"missing":    `<target><include href="other"/></target>`,
		"no XML":     `MZ`,
		"nothing":    ``,
		"not closed": `<target><reg name="a"`,
	} {
		if l, err := parseTarget(give(map[string]string{"target.xml": xml})); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
	l, err := parseTarget(give(description))
	must(t, err)
	if at := l.registers["eflags"]; at != (registerAt{4, 32, 4}) {
		t.Errorf("eflags is %+v", at)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("+$T05thread:01;#07$0* #7a-$a}\x03#e1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{}
		for _, x := range b {
			if d.feed(x) == framePacket && len(d.content) > maxPacket {
				t.Fatalf("a packet of %d bytes", len(d.content))
			}
		}
		// What is framed comes out as it was.
		d = decoder{}
		got, err := decode(&d, appendPacket(nil, string(b)))
		if len(b) <= maxPacket/2 && (err != nil || len(got) != 1 || !bytes.Equal(got[0], b)) {
			t.Fatalf("%q comes out as %q, %v", b, got, err)
		}
	})
}

func FuzzStop(f *testing.F) {
	f.Add([]byte("T05thread:01;watch:ffffffff81234567;"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStop(b); err == nil && (s.CPU < -1 || s.CPU > 0xffff) {
			t.Errorf("%q: %+v", b, s)
		}
	})
}

func FuzzTarget(f *testing.F) {
	f.Add([]byte(description["target.xml"]), []byte(description["i386-64bit.xml"]), []byte("00112233"))
	f.Fuzz(func(t *testing.T, target, core, regs []byte) {
		l, err := parseTarget(func(name string) ([]byte, error) {
			if name == "target.xml" {
				return target, nil
			}
			return core, nil
		})
		if err != nil {
			return
		}
		if len(l.registers) > maxRegisters {
			t.Fatalf("%d registers", len(l.registers))
		}
		r := Registers{l, regs}
		for name := range l.registers {
			r.Get(name)
		}
	})
}
