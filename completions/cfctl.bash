# bash completion for cfctl; installed as share/bash-completion/completions/cfctl
_cfctl_completion() {
    local kind value help
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            *) printf -v value %q "$value" && COMPREPLY+=("$value") ;;
        esac
    done < <(_CFCTL_COMPLETE=complete_bash _CFCTL_LINE="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null)
}
complete -o nosort -F _cfctl_completion cfctl
