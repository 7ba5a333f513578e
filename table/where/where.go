// Package where filters rows by an expression in CEL, the Common Expression
// Language: comm == "sshd" && rss > 10000000.
//
// The variables are the view's columns: numbers and sizes are int, durations
// duration, times timestamp, addresses and bytes string, lists list. A missing value
// is null, which differs from all others; whatever else is asked of it is not true.
package where

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/outsight-vmi/outsight/table"
)

// Filter is a compiled expression over the columns of one view. It is not safe for
// concurrent use.
type Filter struct {
	program cel.Program
	columns []table.Column
	used    []int
	vars    map[string]any
}

// costLimit bounds one evaluation: guest text can be long, and regular expressions
// slow.
const costLimit = 10_000_000

// Compile reads an expression. Its error says in one sentence what is wrong, and
// where.
func Compile(columns []table.Column, expression string) (*Filter, error) {
	opts := []cel.EnvOption{ext.Strings(), ext.Lists()}
	for _, c := range columns {
		if !c.Option {
			opts = append(opts, cel.Variable(c.Name, typeOf(c.Type)))
		}
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("expression: %w", err)
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, errors.New(message(expression, issues))
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(typeOf(table.Bool)) {
		return nil, fmt.Errorf("the expression gives %s, not true or false", plainTypes(t.String()))
	}
	f := &Filter{columns: columns, vars: map[string]any{}}
	// Optimized, what is wrong with a constant is found here.
	if f.program, err = env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize)); err != nil {
		return nil, fmt.Errorf("expression: %w", err)
	}
	// Only what it names is converted.
	named := map[string]bool{}
	for _, ref := range ast.NativeRep().ReferenceMap() {
		named[ref.Name] = true
	}
	for i, c := range columns {
		if named[c.Name] {
			f.used = append(f.used, i)
		}
	}
	return f, nil
}

// Columns are the columns that the expression mentions.
func (f *Filter) Columns() []int { return f.used }

// plainTypes leaves out of a message that a value can be missing: nearly all can.
func plainTypes(message string) string {
	return wrapperRE().ReplaceAllString(message, "$1")
}

var wrapperRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`wrapper\(([a-z_.]+)\)`) })

func typeOf(t table.Type) *cel.Type {
	switch t {
	case table.Bool:
		return cel.NullableType(cel.BoolType)
	case table.Int, table.Uint, table.Size:
		return cel.NullableType(cel.IntType)
	case table.Float:
		return cel.NullableType(cel.DoubleType)
	case table.Duration:
		return cel.NullableType(cel.DurationType)
	case table.Time:
		return cel.NullableType(cel.TimestampType)
	case table.List:
		return cel.ListType(cel.StringType)
	case table.Numbers:
		return cel.ListType(cel.IntType)
	}
	return cel.NullableType(cel.StringType)
}

// Matches reports whether a row satisfies the expression.
func (f *Filter) Matches(row table.Row) (bool, error) {
	missing := false
	for _, i := range f.used {
		v := row[i]
		missing = missing || v.IsNull()
		f.vars[f.columns[i].Name] = toCEL(v, f.columns[i].Type)
	}
	out, _, err := f.program.Eval(f.vars)
	if err != nil {
		if missing && !strings.Contains(err.Error(), "cost") {
			return false, nil
		}
		return false, fmt.Errorf("expression: %w", err)
	}
	return out == types.True, nil
}

func toCEL(v table.Value, t table.Type) any {
	switch v.Type() {
	case table.Null:
		switch t {
		case table.List, table.Numbers:
			return []string{} // CEL has no null lists
		}
		return types.NullValue
	case table.Bool:
		return v.Bool()
	case table.Int:
		return v.Int()
	case table.Uint, table.Size:
		return int64(min(v.Uint(), math.MaxInt64))
	case table.Float:
		return v.Float()
	case table.Duration:
		return v.Duration()
	case table.Time:
		return v.Time()
	case table.Addr:
		return "0x" + strconv.FormatUint(v.Uint(), 16)
	case table.Bytes:
		return fmt.Sprintf("%x", v.Text())
	case table.List:
		return v.List()
	case table.Numbers:
		numbers := make([]int64, len(v.List()))
		for i, s := range v.List() {
			numbers[i], _ = strconv.ParseInt(s, 10, 64) // NumbersValue wrote it
		}
		return numbers
	}
	return v.Text()
}
