# Completion of godwit for bash. Commands and options come from the program itself
# (godwit --print-commands), names of VMs, nodes and migrations from its daemon:
# this file knows neither, so it cannot be out of date.

# Completes $2, for which a synopsis says $1: NODE, FILE, none|zstd …
_godwit_value() {
    local kind=$1 word=$2 names=
    case $kind in
    VM | VM-NAME) names=$("$godwit" "${socket[@]}" --print-names vms 2>/dev/null) ;;
    NODE) names=$("$godwit" "${socket[@]}" --print-names nodes 2>/dev/null) ;;
    ID) names=$("$godwit" "${socket[@]}" --print-names migrations 2>/dev/null) ;;
    *'|'*) names=${kind//|/ } ;;
    FILE | PATH)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word")
}

# Reads the words before the cursor: sets plain (no options, no values), expects
# (the option whose value comes next) and socket.
_godwit_read_words() {
    local i w
    for ((i = 1; i < COMP_CWORD; i++)); do
        w=${COMP_WORDS[i]}
        # Bash splits "--to=n2" into three words.
        if [ "$w" = = ]; then
            continue
        elif [ -n "$expects" ]; then
            [ "$expects" = --socket ] && socket=(--socket "$w")
            expects=
        elif [[ $w == -* ]]; then
            expects=${arg_of[$w]:+$w}
        else
            plain+=("$w")
        fi
    done
}

_godwit() {
    local godwit=$1 word=$2 line command operand options w expects='' globals='' candidates=''
    local -a socket=() plain=() lines=()
    local -A arg_of=()

    COMPREPLY=()
    [ "$word" = = ] && word=
    mapfile -t lines < <("$godwit" --print-commands 2>/dev/null)
    for line in "${lines[@]}"; do
        for w in ${line##*$'\t'}; do
            [[ $w == *=* ]] && arg_of[${w%%=*}]=${w#*=}
        done
    done
    _godwit_read_words
    if [ -n "$expects" ]; then
        _godwit_value "${arg_of[$expects]}" "$word"
        return
    fi
    for line in "${lines[@]}"; do
        command=${line%%$'\t'*}
        options=${line##*$'\t'}
        operand=${line#*$'\t'}
        operand=${operand%%$'\t'*}
        [ -z "$command" ] && globals=$options && continue
        w="${plain[*]}"
        if [ "$w" = "$command" ] && [ -n "$operand" ] && [[ $word != -* ]]; then
            [ "$operand" = NAME ] && operand=VM-NAME
            _godwit_value "$operand" "$word"
            return
        elif [[ "$w " == "$command "* ]]; then
            candidates="$options $globals"
            break
        elif [ -z "$w" ]; then
            candidates+=" ${command%% *}"
        elif [[ $command == "$w "* ]]; then
            candidates+=" ${command#"$w "}"
        fi
    done
    [[ $word == -* && ${#plain[@]} -eq 0 ]] && candidates=$globals
    w=
    for line in $candidates; do
        w+=" ${line%%=*}"
    done
    mapfile -t COMPREPLY < <(compgen -W "$w" -- "$word" | sort -u)
}
complete -F _godwit godwit
