package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// exitCode is the end of a command that is no success.
type exitCode int

func (c exitCode) Error() string {
	return fmt.Sprintf("command terminated with non-zero exit code: exit code %d", int(c))
}

// outcomeStatus is what clients are told of the end (metav1.Status).
type outcomeStatus struct {
	Status  string          `json:"status"`
	Message string          `json:"message,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Details *outcomeDetails `json:"details,omitempty"`
	Code    int             `json:"code,omitempty"`
}

type outcomeDetails struct {
	Causes []outcomeCause `json:"causes"`
}

type outcomeCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// outcomeOf words the end of a command for the protocols from version 4 on.
func outcomeOf(err error) []byte {
	status := outcomeStatus{Status: "Success"}
	var code exitCode
	switch {
	case errors.As(err, &code):
		status = outcomeStatus{
			Status: "Failure", Reason: remotecommand.NonZeroExitCodeReason, Message: code.Error(),
			Details: &outcomeDetails{Causes: []outcomeCause{{
				Reason: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(int(code)),
			}}},
		}
	case err != nil:
		status = outcomeStatus{
			Status: "Failure", Reason: "InternalError", Code: http.StatusInternalServerError,
			Message: fmt.Sprintf("Internal error occurred: %v", err),
		}
	}
	data, err := json.Marshal(status)
	if err != nil {
		return nil
	}
	return data
}

// plainOutcome words it for the older ones, which are told of failures alone.
func plainOutcome(err error) []byte {
	if err == nil {
		return nil
	}
	return []byte(err.Error())
}
