package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
)

// Validate says what is wrong with the options, everything at once, as Serve would
// before it listens: *embedlog.InvalidSettingError, joined.
func (o *Options) Validate() error {
	if o == nil {
		o = &Options{}
	}
	_, err := o.check()
	return err
}

// check validates the options, and returns the limits with their defaults.
func (o *Options) check() (Limits, error) {
	limits, err := o.Limits.withDefaults()
	bad := []error{err}
	if len(o.Listeners) == 0 {
		bad = append(bad, &embedlog.InvalidSettingError{Name: "Listeners", Reason: "must have at least one: nothing listens unless it is asked to"})
	}
	for i := range o.Listeners {
		bad = append(bad, o.Listeners[i].check(i, o.AllowInsecure))
	}
	return limits, errors.Join(bad...)
}
