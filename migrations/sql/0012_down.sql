-- Version 0011's definitions know neither these settings of a training nor a column of pictures.

UPDATE recstore_private.recommenders
SET definition = definition #- '{hyperparameters,user_exponent}' #- '{hyperparameters,view_exponent}' #- '{hyperparameters,ridge}'
        #- '{hyperparameters,popularity_exponent}' #- '{titles,picture}';

UPDATE recstore_private.generations
SET definition = definition #- '{hyperparameters,user_exponent}' #- '{hyperparameters,view_exponent}' #- '{hyperparameters,ridge}'
        #- '{hyperparameters,popularity_exponent}' #- '{titles,picture}';

UPDATE recstore_private.studies
SET definition = definition #- '{hyperparameters,user_exponent}' #- '{hyperparameters,view_exponent}' #- '{hyperparameters,ridge}'
        #- '{hyperparameters,popularity_exponent}' #- '{titles,picture}';
