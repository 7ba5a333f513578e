package kernel

import (
	"bytes"
	"math"
	"reflect"
	"testing"
)

func someAnswers() memo {
	size, top, bottom := uint32(math.MaxUint32), int64(math.MaxInt64), int64(math.MinInt64)
	m := newMemo()
	m.Symbols["_text"] = &Symbol{Name: "_text", Type: 'T'}
	m.Symbols["early"] = &Symbol{Name: "early", Type: 'd', Rel: -4096}
	m.Symbols["cpu_info"] = &Symbol{Name: "cpu_info", Type: 'D', Rel: 1 << 40, Percpu: true}
	m.Symbols["no_such_symbol"] = nil
	m.Fields["cred.uid"] = &Field{Offset: 8, Size: 4, Type: 77}
	m.Fields["sock.sk_protocol"] = &Field{Offset: 516, Size: 4, BitOff: 8, BitSize: 255, Type: math.MaxUint32}
	m.Fields["cred.no_such_member"] = nil
	m.Sizes["task_struct"], m.Sizes["no_such_type"] = &size, nil
	m.Enums["a.top"], m.Enums["a.bottom"], m.Enums["a.none"] = &top, &bottom, nil
	m.Members["lsm_static_calls_table"] = &[]Member{{Name: "binder_set_context_mgr", Size: 5 * 32}, {Name: "capable", Offset: math.MaxUint32, Size: math.MaxUint32}}
	m.Members["no_such_type"] = nil
	m.Chosen["heads"] = &[]Extent{{*m.Symbols["early"], 64}, {*m.Symbols["cpu_info"], math.MaxUint64}}
	m.Chosen["none"] = &[]Extent{}
	return m
}

func TestMemoRoundTrip(t *testing.T) {
	for _, m := range []memo{newMemo(), someAnswers()} {
		b := m.appendTo(nil)
		got, err := parseMemo(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%v became %v", m, got)
		}
		for n := range b {
			if _, err := parseMemo(b[:n]); err == nil {
				t.Errorf("cut after %d of %d bytes, and read without an error", n, len(b))
			}
		}
	}
}

func FuzzMemo(f *testing.F) {
	f.Add(someAnswers().appendTo(nil))
	f.Add(newMemo().appendTo(nil))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMemo(b)
		if err != nil {
			return
		}
		again, err := parseMemo(m.appendTo(nil))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%v became %v: %v", m, again, err)
		}
	})
}
