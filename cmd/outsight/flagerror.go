package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError says in our own words what is wrong with a flag.
func flagError(c *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := "--" + e.GetSpecifiedName()
		if e.GetSpecifiedShortnames() != "" {
			name = "-" + e.GetSpecifiedName()
		}
		return fmt.Errorf("unknown flag %s; %s --help lists the flags", name, c.CommandPath())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("%s needs a value", flagName(e.GetFlag()))
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return fmt.Errorf("%q is not a flag", e.GetSpecifiedFlag())
	}
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	name, value := flagName(e.GetFlag()), e.GetValue()
	switch kind := e.GetFlag().Value.Type(); kind {
	case "int", "int32", "int64", "uint", "uint32", "uint64":
		if errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%s: %s is out of range", name, value)
		}
		return fmt.Errorf("%s: %q is not a number", name, value)
	case "bool":
		return fmt.Errorf("%s: %q is neither true nor false", name, value)
	case "duration":
		return fmt.Errorf("%s: %q is not a duration; write 500ms or 2s", name, value)
	}
	if cause := e.Unwrap(); cause != nil {
		return fmt.Errorf("%s: %w", name, cause)
	}
	return fmt.Errorf("%s: invalid value %q", name, value)
}

func flagName(f *pflag.Flag) string { return "--" + f.Name }
