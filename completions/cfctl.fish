# fish completion for cfctl; installed as share/fish/vendor_completions.d/cfctl.fish
function __cfctl_complete
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $token; or echo)
    set -l value (string replace -- "$option" '' $token)
    for line in (_CFCTL_COMPLETE=complete_fish _CFCTL_INCOMPLETE="$token" \
            _CFCTL_WORDS=(string join \n -- $words | string collect) $words[1] 2>/dev/null)
        set -l part (string split \t -- $line)
        switch $part[1]
            case file
                printf '%s\n' $option(__fish_complete_path "$value")
            case dir
                printf '%s\n' $option(__fish_complete_directories "$value")
            case plain
                printf '%s%s\t%s\n' "$option" $part[2] $part[3]
        end
    end
end
complete --command cfctl --no-files --keep-order --arguments '(__cfctl_complete)'
